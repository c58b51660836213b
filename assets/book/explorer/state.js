/* What is shown: one object, `state`, which only the functions here change. Whoever listens is told what has changed.
 *
 * Legend: T tokens. A query is the character that asks (row), a key one that is looked at (column).
 * Uses: AttentionModel, Trained.
 */
"use strict";

(function () {
  const { indexOfLargest } = window.AttentionModel;
  const { data, model } = window.Trained;

  const nothing = () => ({ query: null, key: null });

  const state = {
    text: data.chapterLine,
    layer: 0,
    head: 0,
    pinned: { query: 0, key: null }, // what was chosen; a key of null is the one that is looked at most
    hovered: nothing(), // what is pointed at, for as long as it is; `of` is the head, if not the chosen one
    temperature: 1,
    silence: false,
    // what the model makes of it
    line: model.encode(""), // what it reads of the text
    result: null, // of model.forward; null for a line that holds nothing
    silencedResult: null, // the same with the chosen head silenced, if it is
  };

  // Reading

  const tables = (which = state) => state.result.tables[which.layer][which.head];

  /** (T, T) -> (T,) */
  function rowOf(table, i) {
    const T = state.line.ids.length;
    return table.subarray(i * T, (i + 1) * T);
  }

  /** The query and the key that everything speaks of. */
  function selection() {
    const query = state.hovered.query ?? state.pinned.query;
    const key = state.hovered.key ?? (state.hovered.query === null ? state.pinned.key : null);
    return { query, key: key ?? indexOfLargest(rowOf(tables().weights, query)) };
  }

  /** What comes out at the end, without the chosen head if it is silenced. */
  const outcome = () => (state.silence ? state.silencedResult : state.result);

  // Changing

  let tell = () => {};

  /** From now on call `listener` after every change: with {text}, {head} or {pinned} as true, or with none of them. */
  function listen(listener) {
    tell = listener;
  }

  function silenceChosen() {
    const { silence, result, line, layer, head } = state;
    state.silencedResult = silence && result ? model.forward(line.ids, { layer, head }) : null;
  }

  /** Read a text: encode it, run the model, select a character, or else the last one. */
  function setLine(text, query = null) {
    state.text = text;
    state.line = model.encode(text);
    const { ids } = state.line;
    const last = ids.length - 1;
    state.result = ids.length > 0 ? model.forward(ids) : null;
    state.pinned = { query: Math.min(query ?? last, last), key: null };
    state.hovered = nothing();
    silenceChosen();
    tell({ text: true });
  }

  /** Open a head, at the character that it looks at most or at another key. */
  function choose(layer, head, key = null) {
    state.layer = layer;
    state.head = head;
    state.pinned = { query: state.pinned.query, key };
    silenceChosen();
    if (state.result) tell({ head: true });
  }

  function select(query, key = null) {
    state.pinned = { query, key };
    if (state.result) tell({ pinned: true });
  }

  function hover(hovered) {
    state.hovered = hovered;
    if (state.result) tell({});
  }

  function forgetHover() {
    if (state.hovered.query !== null || state.hovered.key !== null) hover(nothing());
  }

  function setTemperature(temperature) {
    state.temperature = temperature;
    if (state.result) tell({});
  }

  function setSilence(silence) {
    state.silence = silence;
    silenceChosen();
    if (state.result) tell({ head: true });
  }

  const reading = { state, tables, rowOf, selection, outcome };
  window.State = { ...reading, listen, setLine, choose, select, hover, forgetHover, setTemperature, setSilence };
})();
