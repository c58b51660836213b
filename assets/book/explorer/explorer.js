/* The page: whenever something changes, its parts draw what depends on it, and pictures no sooner than they are near.
 *
 * Uses: Waiting, Trained, Measuring, Words, Colours, State, Address, and the parts: Line, Lanes, Heads, Matrices,
 * Readout, Next, Chapter.
 */
"use strict";

(function () {
  const { data, model } = window.Trained;
  const { afterPause } = window.Waiting;
  const { $, headName, number } = window.Words;
  const { readTheme } = window.Colours;
  const { state, selection, tables, setLine, choose, select, listen } = window.State;
  const { Measuring, Address, Line, Lanes, Heads, Matrices, Readout, Next, Chapter } = window;

  // Drawing

  /** Draw what depends on what has changed: the text, the head, what is pinned, or the page's size and colours. */
  function update({ text = false, head = false, pinned = false, layout = false }) {
    const { result } = state;
    if (text) Line.draw();
    document.body.classList.toggle("nothing", result === null);
    $("readout").hidden = result === null;
    if (result === null) return;
    if (text || layout) {
      Lanes.draw();
      stale.heads = true;
    }
    if (text || head) {
      for (const node of document.querySelectorAll(".chosen-head")) node.textContent = headName(state);
      Heads.paint();
    }
    if (text || head || layout) stale.matrices = true;
    paint();
    if (text) Lanes.showQuery();
    if (text || head || pinned) Address.keep();
  }

  /** Draw what depends on the selection; quick enough for every move of the pointer. */
  function paint() {
    const selected = selection();
    Lanes.paint(selected);
    Readout.paint(selected);
    Next.paint(selected);
    drawPictures();
  }

  // Pictures are drawn when they come near the screen: while you type they mostly are not.
  const stale = { heads: true, matrices: true };
  const isNear = { heads: false, matrices: false };

  function watchPictures() {
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) isNear[target.id] = isIntersecting;
        if (state.result) drawPictures();
      },
      { rootMargin: "300px" },
    );
    for (const name of Object.keys(isNear)) observer.observe($(name));
    // a hundred passes: only for those who come to see what they measure
    const measuring = new IntersectionObserver((entries) => {
      if (entries.some(({ isIntersecting }) => isIntersecting)) startMeasuring();
    });
    for (const name of ["heads", "habits"]) measuring.observe($(name));
  }

  function drawPictures() {
    if (isNear.heads && stale.heads) {
      Heads.drawPictures();
      stale.heads = false;
    }
    if (isNear.matrices) {
      const isNew = stale.matrices;
      if (isNew) Matrices.draw();
      stale.matrices = false;
      Matrices.paint(selection());
      if (isNew) Matrices.reveal(selection());
    }
  }

  const startMeasuring = () =>
    Measuring.start(() => {
      Chapter.draw();
      if (state.result) Heads.paint();
    });

  // Start

  function writeFacts() {
    const { numLayers, numHeads, embDim, vocabSize, contextLength } = model.cfg;
    const headDim = embDim / numHeads;
    $("model-facts").textContent =
      `${numLayers} layers of ${numHeads} heads, ${data.parameters.toLocaleString("en")} parameters, ` +
      `${vocabSize} characters, up to ${contextLength} at a time`;
    for (const node of document.querySelectorAll(".head-dim")) node.textContent = headDim;
    for (const node of document.querySelectorAll(".root-dim")) node.textContent = number(Math.sqrt(headDim), 2);
  }

  function listenToWindow() {
    window.addEventListener("hashchange", () => {
      if (Address.hasLine()) Address.read();
    });
    window.addEventListener(
      "resize",
      afterPause(100, () => update({ layout: true })),
    );
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      readTheme();
      Lanes.drawRamp();
      update({ layout: true });
    });
  }

  function start() {
    writeFacts();
    readTheme();
    Line.build();
    Lanes.drawRamp();
    Heads.build();
    Matrices.build();
    Chapter.draw();
    watchPictures();
    const { layer, head } = Measuring.plainestHead();
    choose(layer, head);
    listen(update);
    Lanes.listen();
    Next.listen();
    listenToWindow();
    Address.read();
  }

  start();

  /** For curious learners, in the browser's console, and for the tests. */
  window.explorer = {
    model,
    state,
    setLine,
    choose,
    select,
    selection,
    /** {logits (T, V), tables[layer][head]} of any line that the model can read. */
    run: (text) => model.forward(model.encode(text).ids),
    /** What is on the screen now. */
    shown: () => ({
      ...{ text: state.text, layer: state.layer, head: state.head },
      ...(state.result && { ...selection(), tables: tables() }), // nothing of a line that holds nothing
    }),
    habits: Measuring.habits,
    peaks: Measuring.peaks,
    /** A promise of what is measured on chapter 8's text. */
    get measured() {
      return startMeasuring();
    },
  };
})();
