/* The numbers that chapter 8 prints, as tables, and how far this page is from PyTorch.
 *
 * Uses: AttentionModel, Trained, Measuring, Words.
 */
"use strict";

(function () {
  const { indexOfLargest } = window.AttentionModel;
  const { data, model, HEADS } = window.Trained;
  const { RANGES, measured, peaks } = window.Measuring;
  const { $, element, token, number, shortName } = window.Words;

  /** All that is known by now; dots stand for the rest. */
  function draw() {
    $("chapter-line").textContent = data.chapterLine;
    const rows = data.validationRows.length;
    const { contextLength } = model.cfg;
    $("chapter-text").textContent =
      `${rows} rows of ${contextLength} characters that the model was not trained on, and one line`;
    drawPeaks();
    drawHabits();
    if (measured.difference !== null) drawAgreement();
  }

  function headerRow(names) {
    return element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name))));
  }

  function drawPeaks() {
    const header = headerRow(["looks most", "head", "end looks at", "weight"]);
    const rows = measured.habits === null ? [] : peaks();
    const body = rows.map(({ name, layer, head, character, weight }) =>
      element(
        "tr",
        {},
        element("td", {}, name),
        element("td", {}, ...shortName({ layer, head })),
        element("td", {}, token(character)),
        element("td", {}, number(weight, 2)),
      ),
    );
    $("peaks").replaceChildren(header, element("tbody", {}, ...body));
  }

  function drawHabits() {
    const header = headerRow(["head", ...RANGES.map(({ name }) => name), "added loss"]);
    const body = HEADS.map((which, n) => {
      const row = measured.habits === null ? RANGES.map(() => null) : measured.habits[n];
      const most = measured.habits === null ? -1 : indexOfLargest(row);
      const cells = row.map((weight, c) =>
        element("td", { class: c === most ? "most" : "" }, weight === null ? "…" : number(weight, 2)),
      );
      const harm = measured.losses === null ? "…" : number(measured.losses[n] - measured.intact, 2);
      return element(
        "tr",
        {},
        element("td", {}, ...shortName(which)),
        ...cells,
        element("td", {}, harm),
      );
    });
    $("habits").replaceChildren(header, element("tbody", {}, ...body));
  }

  function drawAgreement() {
    const [digits, power] = measured.difference.toExponential(1).split("e-");
    $("agreement").replaceChildren(
      `Weights and chances computed here and by PyTorch differ by at most ${digits} · 10`,
      element("sup", {}, `−${power}`),
      ` over the ${data.reference.length} lines to try.`,
    );
  }

  window.Chapter = { draw };
})();
