/* What comes next: the chances of the next character, at any temperature, with or without the chosen head.
 *
 * Legend: V vocabulary size.
 * Uses: AttentionModel, Trained, Words, State.
 */
"use strict";

(function () {
  const { indexOfLargest } = window.AttentionModel;
  const { data, model } = window.Trained;
  const { $, element, visible, token, place, number } = window.Words;
  const { state, outcome, setLine, setTemperature, setSilence } = window.State;

  const SHOWN_CHANCES = 10;

  function paint({ query }) {
    const { ids, characters } = state.line;
    const chances = model.chances(outcome().logits, query, state.temperature); // (V,)
    const intact = model.chances(state.result.logits, query, state.temperature); // (V,)
    const order = Array.from(chances.keys()).sort((a, b) => chances[b] - chances[a]);
    const actual = query + 1 < ids.length ? ids[query + 1] : null;
    const percent = (chance) => `${number(100 * chance, 1)} %`;
    const list = $("chances");
    while (list.children.length < SHOWN_CHANCES) list.append(chanceRow());
    order.slice(0, SHOWN_CHANCES).forEach((id, n) => {
      const item = list.children[n];
      const [name, track, text] = item.children;
      item.className = id === actual ? "is-actual" : "";
      name.textContent = visible(data.vocabulary[id]);
      track.firstElementChild.style.width = `${100 * chances[id]}%`;
      track.lastElementChild.style.left = `${99.5 * intact[id]}%`;
      track.lastElementChild.hidden = !state.silence;
      text.textContent = percent(chances[id]);
    });

    $("next-where").replaceChildren(
      "After ",
      token(characters[query]),
      place(query),
      actual === null ? ", the end of your line, the model expects:" : ", the model expects:",
    );
    const notes = [];
    if (actual !== null) {
      const rank = order.indexOf(actual) + 1;
      notes.push(`Your line goes on with `, token(data.vocabulary[actual]));
      notes.push(`: ${percent(chances[actual])}, ${rank === 1 ? "its favourite" : `number ${rank} on its list`}. `);
    }
    if (state.silence) notes.push("The upright marks show the chances with every head.");
    $("chances-note").replaceChildren(...notes);
    paintControls();
  }

  function chanceRow() {
    const intact = element("span", { class: "intact" });
    intact.hidden = true;
    const fill = element("span", { class: "fill" });
    const track = element("span", { class: "track", "aria-hidden": "true" }, fill, intact);
    return element("li", {}, element("span", { class: "token" }), track, element("span", { class: "number" }));
  }

  function paintControls() {
    const isFull = state.line.ids.length >= model.cfg.contextLength;
    $("write").disabled = isFull;
    $("write-note").textContent = isFull ? "The context is full." : "";
  }

  /** Draw the next character from the chances at the end of the line, and append it. */
  function write() {
    const { ids, characters } = state.line;
    const chances = model.chances(outcome().logits, ids.length - 1, state.temperature); // (V,)
    let rest = Math.random();
    let id = chances.findIndex((chance) => (rest -= chance) < 0);
    if (id < 0) id = indexOfLargest(chances); // rounding: the chances add to a hair less than one
    setLine(characters.join("") + data.vocabulary[id]);
  }

  function paintTemperature() {
    $("temperature-value").textContent = number(state.temperature, 1);
  }

  function listen() {
    $("temperature").addEventListener("input", (event) => {
      setTemperature(Number(event.target.value));
      paintTemperature();
    });
    $("silence").addEventListener("change", (event) => setSilence(event.target.checked));
    $("write").addEventListener("click", write);
    paintTemperature();
  }

  window.Next = { listen, paint };
})();
