/* All heads: a small picture of each one's weights, and what it seems to do.
 *
 * Uses: AttentionModel, Trained, Measuring, Words, Drawing, State.
 */
"use strict";

(function () {
  const { indexOfLargest } = window.AttentionModel;
  const { HEADS } = window.Trained;
  const { RANGES, habits, measured } = window.Measuring;
  const { $, element, number, headName } = window.Words;
  const { drawPixels } = window.Drawing;
  const { state, tables, choose } = window.State;

  let cards = []; // one {layer, head, button, canvas, habit, numbers} per head

  function build() {
    cards = HEADS.map((which) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      const [habit, numbers] = [element("span", { class: "habit" }), element("span", { class: "numbers" })];
      const words = element("span", {}, element("span", { class: "name" }, headName(which)), habit, numbers);
      const button = element(
        "button",
        { type: "button", onclick: () => choose(which.layer, which.head) },
        canvas,
        words,
      );
      return { ...which, button, canvas, habit, numbers };
    });
    $("heads").replaceChildren(...cards.map(({ button }) => button));
  }

  const HABITS = [
    "Looks at itself",
    "Looks at the previous character",
    "Looks two to four back",
    "Looks five to fifteen back",
    "Looks sixteen or more back",
  ];

  /** What the n-th head seems to do, told by chapter 8's measure. */
  function describe(which, n) {
    if (measured.habits === null) return { habit: "Measuring …", numbers: "" };
    const usual = measured.habits[n];
    const most = indexOfLargest(usual);
    const habit = usual[most] > 0.5 ? HABITS[most] : "Spreads its weight";
    const here = habits(tables(which).weights);
    const onLine = here === null ? "this line is too short to tell" : `${number(here[most], 2)} on this line`;
    const start = usual[most] > 0.5 ? "" : "most of it ";
    const { losses, intact } = measured;
    const harm = losses === null ? "" : `without it, the loss rises by ${number(losses[n] - intact, 2)}`;
    return { habit, numbers: `${start}${RANGES[most].name}: ${number(usual[most], 2)} in chapter 8, ${onLine}`, harm };
  }

  function paint() {
    for (const [n, card] of cards.entries()) {
      const { habit, numbers, harm } = describe(card, n);
      card.habit.textContent = habit;
      card.numbers.replaceChildren(numbers, element("br"), harm || "");
      card.button.setAttribute("aria-pressed", String(card.layer === state.layer && card.head === state.head));
    }
  }

  function drawPictures() {
    for (const card of cards) drawPixels(card.canvas, tables(card).weights, [0, 1], true);
  }

  window.Heads = { build, paint, drawPictures };
})();
