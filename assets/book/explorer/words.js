/* How things are written: characters, places, heads and numbers, as text or as elements of the page.
 *
 * Uses: nothing.
 */
"use strict";

(function () {
  const $ = (id) => document.getElementById(id);

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  /** A character as it can be seen: spaces and line ends have signs of their own. */
  function visible(character) {
    if (character === " ") return "␣";
    if (character === "\n") return "⏎";
    if (character === "\t") return "⇥";
    if (/^[\p{C}\p{Z}\p{M}]$/u.test(character)) {
      return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    }
    return character;
  }

  function token(character) {
    return element("span", { class: "token" }, visible(character));
  }

  /** Where a character stands, in two lengths; the style sheet shows the one that fits. */
  function place(position) {
    return element("span", {}, " (", element("span", { class: "long" }, "position "), `${position})`);
  }

  function number(value, decimals) {
    if (value === -Infinity) return "−∞";
    return value.toFixed(decimals).replace("-", "−");
  }

  function headName({ layer, head }) {
    return `layer ${layer} head ${head}`;
  }

  /** A head's name, in two lengths as well. */
  function shortName({ layer, head }) {
    return [
      element("span", { class: "long" }, headName({ layer, head })),
      element("span", { class: "short" }, `${layer} · ${head}`),
    ];
  }

  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  window.Words = { $, element, visible, token, place, number, headName, shortName, capital };
})();
