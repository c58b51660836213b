/* Colours: the style sheet's, a weight's shade of the accent, a value's place on cividis, and what is read on them.
 *
 * Uses: Trained.
 */
"use strict";

(function () {
  const { data } = window.Trained;

  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const theme = {};

  function readTheme() {
    const style = getComputedStyle(document.documentElement);
    const names = ["page", "surface", "ink", "muted", "accent", "query", "hidden", "hidden-stripe"];
    for (const name of names) theme[name] = style.getPropertyValue(`--${name}`).trim();
    theme.mono = style.getPropertyValue("--mono");
  }

  /** A weight as a colour between the surface and the accent. The root makes small weights visible. */
  function shade(weight) {
    const [from, to] = [channels(theme.surface), channels(theme.accent)];
    return from.map((c, n) => Math.round(c + (to[n] - c) * Math.sqrt(weight)));
  }

  function luminance(rgb) {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  /** Black or white, whichever reads better on a colour. */
  function inkOn(rgb) {
    return luminance(rgb) > 0.179 ? "#000000" : "#ffffff";
  }

  function paintCell(node, weight) {
    const rgb = shade(weight);
    node.style.backgroundColor = `rgb(${rgb})`;
    node.style.color = inkOn(rgb);
  }

  const palette = data.cividis.map(channels);

  /** A value between two limits as one of cividis' colours, the ones of the notebooks' matrices. */
  function cividis(value, low, high) {
    const share = high > low ? (value - low) / (high - low) : 1;
    return palette[Math.round(Math.min(1, Math.max(0, share)) * (palette.length - 1))];
  }

  /** All of cividis from left to right, as a background. */
  function cividisBar() {
    const stops = data.cividis.filter((_, n) => n % 32 === 0 || n === data.cividis.length - 1).join(",");
    return `linear-gradient(to right, ${stops})`;
  }

  window.Colours = { channels, theme, readTheme, inkOn, paintCell, cividis, cividisBar };
})();
