/* Where each character looks: the characters, one lane of weights per head below, and the chosen head's arcs above.
 *
 * Uses: AttentionModel, Trained, Words, Colours, State.
 */
"use strict";

(function () {
  const { indexOfLargest } = window.AttentionModel;
  const { HEADS } = window.Trained;
  const { $, element, visible, number, headName, shortName } = window.Words;
  const { paintCell } = window.Colours;
  const { state, tables, rowOf, choose, select, hover, forgetHover } = window.State;

  const ARCS = 80; // pixels above the characters
  let tokenButtons = [];
  let lanes = []; // one {layer, head, cells} per head

  // Building, for a new line or another size of the page

  function draw() {
    const container = $("lanes");
    const { characters } = state.line;
    const T = characters.length;
    const root = document.documentElement;
    const rem = parseFloat(getComputedStyle(root).fontSize);
    const label = parseFloat(getComputedStyle(root).getPropertyValue("--label")) * rem;
    const narrowest = 22;
    const cell = Math.max(narrowest, Math.min(46, Math.floor((container.clientWidth - label) / T)));
    container.style.setProperty("--tokens", T);
    container.style.setProperty("--cell", `${cell}px`);
    container.dataset.cell = cell;

    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", cell * T);
    svg.setAttribute("height", ARCS);
    svg.setAttribute("aria-hidden", "true");
    const arcs = element("div", { class: "lane arcs" }, element("span", {}), svg);

    tokenButtons = characters.map((character, position) =>
      element(
        "button",
        {
          type: "button",
          "data-position": position,
          "aria-label": `${visible(character)}, position ${position}`,
          tabindex: -1,
        },
        visible(character),
      ),
    );
    const asking = element("span", {}, "asks");
    const top = element("div", { class: "lane", id: "tokens", role: "group", "aria-label": "Characters" });
    top.append(asking, ...tokenButtons);

    lanes = HEADS.map(buildLane);
    container.replaceChildren(arcs, top, ...lanes.map(({ node }) => node));
  }

  function buildLane(which) {
    const cells = state.line.characters.map((character, position) =>
      element("span", { "data-position": position }, visible(character)),
    );
    const name = element(
      "button",
      { type: "button", onclick: () => choose(which.layer, which.head) },
      ...shortName(which),
    );
    const gap = which.head === 0 ? " layer-gap" : "";
    const node = element("div", { class: `lane cells${gap}` }, name, ...cells);
    const position = (event) => event.target.dataset.position;
    node.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "mouse" || position(event) === undefined) return;
      hover({ ...state.hovered, key: Number(position(event)), of: which });
    });
    node.addEventListener("click", (event) => {
      if (position(event) !== undefined) choose(which.layer, which.head, Number(position(event)));
    });
    return { ...which, node, name, cells };
  }

  function listen() {
    const container = $("lanes");
    const positionOf = (event) => event.target.closest("#tokens button")?.dataset.position;
    container.addEventListener("pointerover", (event) => {
      const position = positionOf(event);
      if (event.pointerType !== "mouse" || position === undefined) return;
      hover({ query: Number(position), key: null });
    });
    container.addEventListener("pointerleave", forgetHover);
    container.addEventListener("click", (event) => {
      const position = positionOf(event);
      if (position !== undefined) select(Number(position));
    });
    container.addEventListener("focusin", (event) => {
      const position = positionOf(event);
      if (position !== undefined && Number(position) !== state.pinned.query) select(Number(position));
    });
    container.addEventListener("keydown", (event) => {
      if (positionOf(event) === undefined) return;
      const last = state.line.ids.length - 1;
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const target = Math.min(last, Math.max(0, state.pinned.query + steps[event.key]));
      forgetHover();
      tokenButtons[target].focus();
    });
  }

  // Colouring, for another selection

  function paint({ query, key }) {
    tokenButtons.forEach((button, position) => {
      button.classList.toggle("is-query", position === query);
      button.tabIndex = position === state.pinned.query ? 0 : -1;
      button.setAttribute("aria-pressed", String(position === state.pinned.query));
    });
    for (const lane of lanes) paintLane(lane, query, key);
    paintArcs(query);
  }

  function paintLane({ layer, head, name, cells }, query, key) {
    const isChosen = layer === state.layer && head === state.head;
    const keyHead = state.hovered.of ?? state;
    const row = rowOf(tables({ layer, head }).weights, query);
    const best = indexOfLargest(row);
    name.setAttribute("aria-pressed", String(isChosen));
    name.setAttribute(
      "aria-label",
      `${headName({ layer, head })}: looks most at ${visible(state.line.characters[best])}, position ${best}, ` +
        `weight ${number(row[best], 2)}`,
    );
    cells.forEach((cell, position) => {
      const isHidden = position > query;
      cell.classList.toggle("is-hidden", isHidden);
      cell.classList.toggle("is-key", position === key && layer === keyHead.layer && head === keyHead.head);
      if (isHidden) {
        cell.style.backgroundColor = "";
        cell.style.color = "";
      } else {
        paintCell(cell, row[position]);
      }
      cell.dataset.weight = row[position];
    });
  }

  function paintArcs(query) {
    const svg = $("lanes").querySelector("svg");
    const cell = Number($("lanes").dataset.cell);
    const height = ARCS;
    const row = rowOf(tables().weights, query);
    const paths = [];
    const reach = Math.max(1, query);
    row.forEach((weight, position) => {
      if (weight < 0.005) return;
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      const [from, to] = [(query + 0.5) * cell, (position + 0.5) * cell];
      const top = height - 2 - (0.25 + 0.75 * Math.sqrt((query - position) / reach)) * (height - 8);
      const control = top - (height - top) / 3; // a cubic curve reaches three quarters of the way to its controls
      const d =
        position === query
          ? `M${from - 5},${height} C${from - 12},${height - 26} ${from + 12},${height - 26} ${from + 5},${height}`
          : `M${from},${height} C${from},${control} ${to},${control} ${to},${height}`;
      path.setAttribute("d", d);
      path.setAttribute("stroke-width", (1 + 5 * weight).toFixed(2));
      path.setAttribute("stroke-opacity", (0.15 + 0.85 * Math.sqrt(weight)).toFixed(2));
      paths.push(path);
    });
    svg.replaceChildren(...paths);
  }

  function drawRamp() {
    const steps = [0, 0.05, 0.2, 0.5, 1].map((weight) => {
      const node = element("b", {}, String(weight));
      paintCell(node, weight);
      return node;
    });
    $("ramp").replaceChildren("weight", ...steps);
  }

  /** On a narrow screen a long line is wider than the page: bring the query into sight. */
  function showQuery() {
    const cell = Number($("lanes").dataset.cell);
    $("lanes").scrollLeft = (state.pinned.query + 2) * cell - $("lanes").clientWidth + tokenButtons[0].offsetLeft;
  }

  window.Lanes = { listen, draw, paint, drawRamp, showQuery };
})();
