/* The trained model that the page shows: what export.py wrote, as a model that runs, and the list of its heads.
 *
 * Uses: MODEL_DATA, AttentionModel.
 */
"use strict";

(function () {
  const data = window.MODEL_DATA;
  const model = new window.AttentionModel.Model(data);
  const { numHeads, numLayers } = model.cfg;
  const HEADS = Array.from({ length: numLayers * numHeads }, (_, n) => ({
    layer: Math.floor(n / numHeads),
    head: n % numHeads,
  }));

  window.Trained = { data, model, HEADS };
})();
