/* The bar at the bottom: what is pointed at, as a sentence.
 *
 * Uses: Words, State.
 */
"use strict";

(function () {
  const { $, element, token, place, number, headName, capital } = window.Words;
  const { state, tables, rowOf } = window.State;

  function paint({ query, key }) {
    const which = state.hovered.of ?? state;
    const { characters, ids } = state.line;
    const { scores, scaled, masked, weights } = tables(which);
    const at = query * ids.length + key;
    const value = (text) => element("span", { class: "value" }, text);
    const [asking, asked] = [token(characters[query]), token(characters[key])];
    const looks =
      key > query
        ? [" can't look ahead to ", asked, place(key), ": weight "]
        : [" looks at ", asked, place(key), " with weight "];
    const sentence = element(
      "p",
      {},
      `${capital(headName(which))}: `,
      asking,
      place(query),
      ...looks,
      value(number(weights[at], 3)),
      ": score ",
      value(number(scores[at], 2)),
      " → scaled ",
      value(number(scaled[at], 2)),
      " → masked ",
      value(number(masked[at], 2)),
      " → softmax ",
      value(number(weights[at], 3)),
    );
    const row = rowOf(weights, query);
    const best = Array.from(row.keys())
      .filter((position) => position <= query)
      .sort((a, b) => row[b] - row[a])
      .slice(0, 3);
    const list = best.flatMap((position, n) => [
      n > 0 ? ", " : "",
      token(characters[position]),
      ` (${position}) ${number(row[position], 3)}`,
    ]);
    $("readout").replaceChildren(sentence, element("p", { class: "most" }, "Its largest weights: ", ...list));
  }

  window.Readout = { paint };
})();
