/* Your line: the text field, what the model can't read of it, and lines to try.
 *
 * Uses: Waiting, Trained, Words, State.
 */
"use strict";

(function () {
  const { afterPause } = window.Waiting;
  const { data, model } = window.Trained;
  const { vocabSize, contextLength } = model.cfg;
  const { $, element, visible, token } = window.Words;
  const { state, setLine } = window.State;

  const problem = (...children) => element("p", { class: "problem" }, ...children);

  function unknownProblem(unknown) {
    const named = unknown.slice(0, 5).flatMap(({ character, position }, n) => [
      n > 0 ? ", " : "",
      token(character),
      element("span", {}, ` (position ${position})`),
    ]);
    const more = unknown.length > 5 ? ` and ${unknown.length - 5} more` : "";
    return problem(
      "The model doesn't know ",
      ...named,
      `${more}. It has met ${vocabSize} characters, and you see what it makes of the rest of your line. It knows `,
      element("code", {}, data.vocabulary.map(visible).join("")),
    );
  }

  function surplusProblem(surplus) {
    const words = surplus === 1 ? "character is" : `${surplus} characters are`;
    return problem(`The model has room for ${contextLength} characters: the last ${words} not read.`);
  }

  function drawMessage() {
    const notes = [];
    const { unknown, surplus, ids } = state.line;
    if (unknown.length > 0) notes.push(unknownProblem(unknown));
    if (surplus > 0) notes.push(surplusProblem(surplus));
    if (ids.length === 0) {
      notes.push(problem("Nothing to look at yet: type a character, or pick one of these lines."));
    }
    if (notes.length === 0) notes.push(element("p", {}, "␣ space, ⏎ new line; positions count from 0"));
    $("message").replaceChildren(...notes);
    $("counter").textContent = `${Array.from(state.text).length} of ${contextLength}`;
  }

  /** Lines to try, and a field that is read once typing pauses. */
  function build() {
    const buttons = data.suggestions.map(({ label, line: text }) =>
      element("button", { type: "button", onclick: () => setLine(text), "data-line": text }, label),
    );
    $("suggestions").replaceChildren(...buttons);
    $("text").addEventListener(
      "input",
      afterPause(60, () => setLine($("text").value)),
    );
  }

  function markSuggestion() {
    for (const button of $("suggestions").children) {
      button.setAttribute("aria-pressed", String(button.dataset.line === state.text));
    }
  }

  /** Say what has become of the text, wherever it came from. */
  function draw() {
    if ($("text").value !== state.text) $("text").value = state.text;
    drawMessage();
    markSuggestion();
  }

  window.Line = { build, draw };
})();
