/* What chapter 8 measures: each head's habits, what silencing it costs, and how far this page is from PyTorch.
 *
 * Legend: T tokens, B rows of the batch, L layers, H heads.
 * Uses: AttentionModel, Trained, Waiting.
 */
"use strict";

(function () {
  const { indexOfLargest } = window.AttentionModel;
  const { data, model, HEADS } = window.Trained;
  const { whenIdle } = window.Waiting;

  /** How far back a key may lie, as in section 8.10. */
  const RANGES = [
    { name: "itself", low: 0, high: 0 },
    { name: "1 back", low: 1, high: 1 },
    { name: "2-4 back", low: 2, high: 4 },
    { name: "5-15 back", low: 5, high: 15 },
    { name: "16+ back", low: 16, high: Infinity },
  ];
  const FIRST_QUERY = 16; // queries with 16 tokens behind them, so that every range can be reached

  /** Mean weight per range of distances; null for a line that is too short. weights (T, T) -> (5,) */
  function habits(weights) {
    const numTokens = Math.round(Math.sqrt(weights.length));
    if (numTokens <= FIRST_QUERY) return null;
    return RANGES.map(({ low, high }) => {
      let total = 0;
      for (let i = FIRST_QUERY; i < numTokens; i++) {
        for (let j = Math.max(0, i - high); j <= i - low; j++) total += weights[i * numTokens + j];
      }
      return total / (numTokens - FIRST_QUERY);
    });
  }

  // On chapter 8's line

  /** The head with the plainest habit: on chapter 8's line it looks most at the previous character. */
  function plainestHead() {
    const { tables } = model.forward(model.encode(data.chapterLine).ids);
    const oneBack = HEADS.map(({ layer, head }) => habits(tables[layer][head].weights)?.[1] ?? 0);
    return HEADS[indexOfLargest(oneBack)];
  }

  const RANKS = ["previous", "near past", "far"];
  const RANK_COLUMNS = [1, 2, 4]; // of RANGES: where each of these heads looks most, among all heads

  /** The three heads that section 8.10 picks, and where they look at the end of its line. */
  function peaks() {
    const { characters, ids } = model.encode(data.chapterLine);
    const { tables } = model.forward(ids);
    return RANKS.map((name, n) => {
      const chosen = indexOfLargest(measured.habits.map((row) => row[RANK_COLUMNS[n]]));
      const { layer, head } = HEADS[chosen];
      const row = tables[layer][head].weights.subarray(-ids.length); // the last query's, (T,)
      const key = indexOfLargest(row);
      return { name, layer, head, character: characters[key], key, weight: row[key] };
    });
  }

  // On chapter 8's text

  const measured = { habits: null, losses: null, intact: null, difference: null }; // null: not yet

  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  /** The largest difference between this page and PyTorch, over the lines to try. */
  async function measureDifference() {
    let difference = 0;
    for (const { line, weights, chances } of data.reference) {
      await whenIdle();
      const { ids } = model.encode(line);
      const run = model.forward(ids);
      const pairs = HEADS.map(({ layer, head }) => [
        run.tables[layer][head].weights.subarray(-ids.length), // the last query's, (T,)
        weights[layer][head],
      ]);
      pairs.push([model.chances(run.logits, ids.length - 1), chances]);
      for (const [ours, theirs] of pairs) {
        ours.forEach((v, n) => (difference = Math.max(difference, Math.abs(v - theirs[n]))));
      }
    }
    return difference;
  }

  /** All of it, one pass at a time, so that the page stays quick; `tell` is called whenever more is known. */
  async function measure(tell) {
    measured.difference = await measureDifference();
    tell();

    const { contextLength } = model.cfg;
    const batch = data.validationRows.map((text) => model.encode(text.slice(0, contextLength)).ids); // B times (T,)
    const targets = data.validationRows.map((text) => {
      const next = Array.from(text).slice(1); // what follows each character
      return next.map((character) => model.ids.get(character));
    });
    const perRow = []; // B times (L*H, 5)
    const intact = [];
    for (const [n, ids] of batch.entries()) {
      await whenIdle();
      const run = model.forward(ids);
      perRow.push(HEADS.map(({ layer, head }) => habits(run.tables[layer][head].weights)));
      intact.push(model.loss(run.logits, targets[n]));
    }
    measured.habits = HEADS.map((_, h) => RANGES.map((_, c) => mean(perRow.map((row) => row[h][c]))));
    measured.intact = mean(intact);
    tell();

    const losses = [];
    for (const which of HEADS) {
      const terms = [];
      for (const [n, ids] of batch.entries()) {
        await whenIdle();
        terms.push(model.loss(model.forward(ids, which).logits, targets[n]));
      }
      losses.push(mean(terms));
    }
    measured.losses = losses;
    tell();
    return measured;
  }

  let measuring = null;

  /** Measure, once however often it is asked for; a promise of `measured`. */
  function start(tell) {
    measuring ??= measure(tell);
    return measuring;
  }

  window.Measuring = { RANGES, habits, plainestHead, peaks, measured, start };
})();
