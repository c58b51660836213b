/* The address keeps the state, so that a link shows what its sender saw.
 *
 * Uses: Trained, Waiting, State.
 */
"use strict";

(function () {
  const { numLayers, numHeads, contextLength } = window.Trained.model.cfg;
  const { afterPause } = window.Waiting;
  const { state, choose, setLine } = window.State;

  const keep = afterPause(200, () => {
    const parts = new URLSearchParams({ layer: state.layer, head: state.head, query: state.pinned.query });
    const hash = `#line=${encodeURIComponent(state.text)}&${parts}`;
    if (hash !== window.location.hash) window.history.replaceState(null, "", hash);
  });

  /** A whole number from the address, if it is one of the first `count`. */
  function wholeNumber(text, count) {
    return /^\d+$/.test(text ?? "") && Number(text) < count ? Number(text) : null;
  }

  function read() {
    const parts = new URLSearchParams(window.location.hash.slice(1).replaceAll("+", "%2B"));
    const layer = wholeNumber(parts.get("layer"), numLayers) ?? state.layer;
    const head = wholeNumber(parts.get("head"), numHeads) ?? state.head;
    choose(layer, head);
    setLine(parts.get("line") ?? state.text, wholeNumber(parts.get("query"), contextLength));
  }

  const hasLine = () => /[#&]line=/.test(window.location.hash); // the link to the text field has none

  window.Address = { keep, read, hasLine };
})();
