/* The page: reads a line, runs the model, and draws where every head looks.
 *
 * One object, `state`, says what is shown; every change goes through `update`, which draws what depends on it.
 * Legend: T tokens, L layers, H heads. A query is the character that asks (row), a key one that is looked at (column).
 */
"use strict";

(function () {
  const { Model, RANGES, FIRST_QUERY, habits, indexOfLargest } = window.AttentionModel;
  const data = window.MODEL_DATA;
  const model = new Model(data);
  const { numHeads, numLayers, contextLength, embDim } = model.cfg;
  const headDim = embDim / numHeads;
  const HEADS = Array.from({ length: numLayers * numHeads }, (_, n) => ({
    layer: Math.floor(n / numHeads),
    head: n % numHeads,
  }));
  const STEPS = ["scores", "scaled", "masked", "weights"];
  const SHOWN_CHANCES = 10;

  const state = {
    text: data.chapterLine,
    layer: 0,
    head: 0,
    pinned: { query: 0, key: null }, // what was chosen; a key of null is the one that is looked at most
    hovered: { query: null, key: null }, // what is pointed at, for as long as it is
    temperature: 1,
    silence: false,
  };
  let line = model.encode(""); // what the model reads of the text
  let result = null; // of model.forward
  let silencedResult = null; // the same with the chosen head silenced
  const measured = { habits: null, losses: null, intact: null, difference: null }; // on chapter 8's text, see measure

  const $ = (id) => document.getElementById(id);

  // Small helpers

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

  const isLater = (query, key) => key > query;
  const isNever = () => false;

  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  function replace(node, ...children) {
    node.replaceChildren(...children);
  }

  function afterPause(milliseconds, task) {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(task, milliseconds);
    };
  }

  // What is shown

  const tables = (which = state) => result.tables[which.layer][which.head];
  const rowOf = (table, i) => table.subarray(i * line.ids.length, (i + 1) * line.ids.length); // (T, T) -> (T,)

  /** The query and the key that everything speaks of. */
  function selection() {
    const query = state.hovered.query ?? state.pinned.query;
    const key = state.hovered.key ?? (state.hovered.query === null ? state.pinned.key : null);
    return { query, key: key ?? indexOfLargest(rowOf(tables().weights, query)) };
  }

  // Colours

  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  let theme = {};

  function readTheme() {
    const style = getComputedStyle(document.documentElement);
    const names = ["page", "surface", "ink", "muted", "accent", "query", "hidden", "hidden-stripe"];
    theme = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
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

  /** A table as a picture with one pixel per cell; isHidden(i, j) says which cells are no values. */
  function drawPixels(canvas, values, [low, high], isHidden) {
    const T = line.ids.length;
    canvas.width = canvas.height = T;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(T, T);
    const hidden = channels(theme.hidden);
    values.forEach((value, n) => {
      const rgb = isHidden(Math.floor(n / T), n % T) ? hidden : cividis(value, low, high);
      picture.data.set([...rgb, 255], 4 * n); // red, green, blue, opaque
    });
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  // The line: text field, messages, suggestions

  function drawMessage() {
    const notes = [];
    const { unknown, surplus } = line;
    if (unknown.length > 0) {
      const named = unknown.slice(0, 5).flatMap(({ character, position }, n) => [
        n > 0 ? ", " : "",
        token(character),
        element("span", {}, ` (position ${position})`),
      ]);
      const more = unknown.length > 5 ? ` and ${unknown.length - 5} more` : "";
      notes.push(
        element(
          "p",
          { class: "problem" },
          "The model doesn't know ",
          ...named,
          `${more}. It has met ${model.cfg.vocabSize} characters, and you see what it makes of the rest of your line. `,
          "It knows ",
          element("code", {}, data.vocabulary.map(visible).join("")),
        ),
      );
    }
    if (surplus > 0) {
      const words = surplus === 1 ? "character is" : `${surplus} characters are`;
      notes.push(
        element(
          "p",
          { class: "problem" },
          `The model has room for ${contextLength} characters: the last ${words} not read.`,
        ),
      );
    }
    if (line.ids.length === 0) {
      notes.push(
        element("p", { class: "problem" }, "Nothing to look at yet: type a character, or pick one of these lines."),
      );
    }
    if (notes.length === 0) notes.push(element("p", {}, "␣ space, ⏎ new line; positions count from 0"));
    replace($("message"), ...notes);
    $("counter").textContent = `${Array.from(state.text).length} of ${contextLength}`;
  }

  function drawSuggestions() {
    const buttons = data.suggestions.map(({ label, line: text }) =>
      element("button", { type: "button", onclick: () => setLine(text), "data-line": text }, label),
    );
    replace($("suggestions"), ...buttons);
  }

  function markSuggestion() {
    for (const button of $("suggestions").children) {
      button.setAttribute("aria-pressed", String(button.dataset.line === state.text));
    }
  }

  // Where each character looks

  const ARCS = 80; // pixels above the characters
  let tokenButtons = [];
  let lanes = []; // one {layer, head, cells} per head

  function drawLanes() {
    const container = $("lanes");
    const T = line.ids.length;
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

    tokenButtons = line.characters.map((character, position) =>
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

    lanes = HEADS.map((which) => {
      const cells = line.characters.map((character, position) =>
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
        state.hovered.key = Number(position(event));
        state.hovered.of = which;
        paint();
      });
      node.addEventListener("click", (event) => {
        if (position(event) === undefined) return;
        state.layer = which.layer;
        state.head = which.head;
        select(state.pinned.query, Number(position(event)));
        update({ head: true });
      });
      return { ...which, node, name, cells };
    });

    replace(container, arcs, top, ...lanes.map(({ node }) => node));
  }

  function forgetHover() {
    state.hovered = { query: null, key: null };
    if (result) paint();
  }

  function listenToTokens() {
    const container = $("lanes");
    const positionOf = (event) => event.target.closest("#tokens button")?.dataset.position;
    container.addEventListener("pointerover", (event) => {
      const position = positionOf(event);
      if (event.pointerType !== "mouse" || position === undefined) return;
      state.hovered = { query: Number(position), key: null };
      paint();
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
      const last = line.ids.length - 1;
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const target = Math.min(last, Math.max(0, state.pinned.query + steps[event.key]));
      state.hovered = { query: null, key: null };
      tokenButtons[target].focus();
    });
  }

  function paintLanes({ query, key }) {
    tokenButtons.forEach((button, position) => {
      button.classList.toggle("is-query", position === query);
      button.tabIndex = position === state.pinned.query ? 0 : -1;
      button.setAttribute("aria-pressed", String(position === state.pinned.query));
    });
    const keyHead = state.hovered.of ?? state;
    for (const { layer, head, name, cells } of lanes) {
      const isChosen = layer === state.layer && head === state.head;
      const row = rowOf(result.tables[layer][head].weights, query);
      const best = indexOfLargest(row);
      name.setAttribute("aria-pressed", String(isChosen));
      name.setAttribute(
        "aria-label",
        `${headName({ layer, head })}: looks most at ${visible(line.characters[best])}, position ${best}, ` +
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
  }

  function paintArcs({ query }) {
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
    replace($("ramp"), "weight", ...steps);
  }

  // All heads

  let headCards = [];

  function drawHeads() {
    headCards = HEADS.map((which) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      const [habit, numbers] = [element("span", { class: "habit" }), element("span", { class: "numbers" })];
      const words = element("span", {}, element("span", { class: "name" }, headName(which)), habit, numbers);
      const button = element(
        "button",
        { type: "button", onclick: () => choose(which.layer, which.head) },
        canvas,
        words,
      );
      return { ...which, button, canvas, habit, numbers };
    });
    replace($("heads"), ...headCards.map(({ button }) => button));
  }

  const HABITS = [
    "Looks at itself",
    "Looks at the previous character",
    "Looks two to four back",
    "Looks five to fifteen back",
    "Looks sixteen or more back",
  ];

  /** What a head seems to do, told by chapter 8's measure. */
  function describeHead({ layer, head }) {
    const n = layer * numHeads + head;
    if (measured.habits === null) return { habit: "Measuring …", numbers: "" };
    const usual = measured.habits[n];
    const most = indexOfLargest(usual);
    const habit = usual[most] > 0.5 ? HABITS[most] : "Spreads its weight";
    const here = habits(result.tables[layer][head].weights);
    const onLine = here === null ? "this line is too short to tell" : `${number(here[most], 2)} on this line`;
    const start = usual[most] > 0.5 ? "" : "most of it ";
    const harm =
      measured.losses === null ? "" : `without it, the loss rises by ${number(measured.losses[n] - measured.intact, 2)}`;
    return { habit, numbers: `${start}${RANGES[most].name}: ${number(usual[most], 2)} in chapter 8, ${onLine}`, harm };
  }

  function paintHeads() {
    for (const card of headCards) {
      const { habit, numbers, harm } = describeHead(card);
      card.habit.textContent = habit;
      replace(card.numbers, numbers, element("br"), harm || "");
      card.button.setAttribute("aria-pressed", String(card.layer === state.layer && card.head === state.head));
    }
  }

  // The four tables of the chosen head

  const LABEL = 18; // pixels beside and above a table
  let plots = [];

  function buildPlots() {
    plots = STEPS.map((step) => {
      const plot = document.querySelector(`.matrix[data-step="${step}"] .plot`);
      const canvases = Object.fromEntries(
        ["columns", "rows", "cells"].map((name) => [name, element("canvas", { "aria-hidden": "true" })]),
      );
      canvases.columns.className = "column-labels";
      canvases.rows.className = "row-labels";
      canvases.cells.className = "cells-canvas";
      const title = plot.previousElementSibling.textContent.replace(/\s+/g, " ").trim();
      const table = element(
        "div",
        { class: "table", tabindex: 0, role: "group", "aria-label": `${title}: arrow keys move through the table` },
        element("span", { class: "corner", "aria-hidden": "true" }),
        canvases.columns,
        canvases.rows,
        canvases.cells,
      );
      const legend = element("div", { class: "legend" });
      replace(plot, table, legend);
      listenToTable(table, canvases.cells);
      return { step, table, legend, ...canvases, cell: 0, base: null };
    });
    for (const { table } of plots) {
      table.addEventListener("scroll", () => {
        for (const other of plots) {
          if (other.table === table) continue;
          if (other.table.scrollLeft !== table.scrollLeft) other.table.scrollLeft = table.scrollLeft;
          if (other.table.scrollTop !== table.scrollTop) other.table.scrollTop = table.scrollTop;
        }
      });
    }
  }

  function listenToTable(table, canvas) {
    const cellAt = (event) => {
      const box = canvas.getBoundingClientRect();
      const T = line.ids.length;
      const [i, j] = [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at / box.width) * T));
      return i >= 0 && j >= 0 && i < T && j < T ? { query: i, key: j } : null;
    };
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const cell = cellAt(event);
      if (cell === null || (cell.query === state.hovered.query && cell.key === state.hovered.key)) return;
      state.hovered = cell;
      paint();
    });
    canvas.addEventListener("pointerleave", forgetHover);
    canvas.addEventListener("click", (event) => {
      const cell = cellAt(event);
      if (cell !== null) select(cell.query, cell.key);
    });
    table.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const { query, key } = selection();
      const inside = (position) => Math.min(line.ids.length - 1, Math.max(0, position));
      state.hovered = { query: null, key: null };
      select(inside(query + moves[event.key][0]), inside(key + moves[event.key][1]));
      reveal(table, selection());
    });
  }

  /** Scroll a table so that a cell can be seen. */
  function reveal(table, { query, key }) {
    const cell = plots[0].cell;
    const into = (start, size, at) => {
      const room = size - LABEL - cell;
      return Math.min(at * cell, Math.max(start, at * cell - room));
    };
    table.scrollLeft = into(table.scrollLeft, table.clientWidth, key);
    table.scrollTop = into(table.scrollTop, table.clientHeight, query);
  }

  /** A canvas of that size in CSS pixels, sharp on every screen. */
  function sized(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) {
      Object.assign(canvas, { width: w, height: h }); // costly, even when nothing changes
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  function limitsOf(step, values) {
    if (step === "weights") return [0, 1];
    const finite = Array.from(values).filter(Number.isFinite);
    return [Math.min(...finite), Math.max(...finite)];
  }

  function drawMatrices() {
    const T = line.ids.length;
    const container = $("matrices");
    const isNarrow = window.matchMedia("(max-width: 40rem), (pointer: coarse)").matches;
    const smallest = isNarrow ? 14 : 9;
    container.style.setProperty("--panel", `${isNarrow ? 256 : Math.max(250, LABEL + T * smallest)}px`);
    const room = container.querySelector(".matrix").clientWidth - LABEL;
    const cell = Math.max(smallest, Math.min(40, Math.floor(room / T)));
    for (const plot of plots) {
      const values = tables()[plot.step]; // (T, T)
      const limits = limitsOf(plot.step, values);
      plot.cell = cell;
      plot.table.firstElementChild.style.cssText = `width:${LABEL}px;height:${LABEL}px`;
      plot.base = drawBase(plot.step, values, limits, cell);
      drawLegend(plot, ...limits);
    }
  }

  /** A table as it looks with nothing selected. */
  function drawBase(step, values, limits, cell) {
    const T = line.ids.length;
    const size = cell * T;
    const base = document.createElement("canvas");
    const context = sized(base, size, size);
    const isMasked = step === "masked";
    const pixels = drawPixels(document.createElement("canvas"), values, limits, isMasked ? isLater : isNever);
    context.imageSmoothingEnabled = false;
    context.drawImage(pixels, 0, 0, size, size);
    if (isMasked) {
      context.strokeStyle = theme["hidden-stripe"];
      context.beginPath();
      for (let n = 0; n < T * T; n++) {
        const [i, j] = [Math.floor(n / T), n % T];
        if (!isLater(i, j)) continue;
        context.moveTo(j * cell, (i + 1) * cell);
        context.lineTo((j + 1) * cell, i * cell);
      }
      context.stroke();
    }
    if (cell > 11) {
      context.fillStyle = theme.page; // a thin line between cells that are large enough
      for (let n = 1; n <= T; n++) {
        context.fillRect(n * cell - 1, 0, 1, size);
        context.fillRect(0, n * cell - 1, size, 1);
      }
    }
    if (cell >= 34) writeValues(context, values, limits, cell);
    return base;
  }

  /** The numbers themselves, where cells have room for them. */
  function writeValues(context, values, [low, high], cell) {
    const T = line.ids.length;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    values.forEach((value, n) => {
      context.fillStyle = Number.isFinite(value) ? inkOn(cividis(value, low, high)) : theme.ink;
      const text = number(value, Math.abs(value) < 10 ? 2 : 1);
      context.fillText(text, ((n % T) + 0.5) * cell, (Math.floor(n / T) + 0.5) * cell);
    });
  }

  function drawLegend({ step, legend }, low, high) {
    const decimals = step === "weights" ? 0 : 1;
    const stops = data.cividis.filter((_, n) => n % 32 === 0 || n === data.cividis.length - 1).join(",");
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.background = `linear-gradient(to right, ${stops})`;
    const parts = [number(low, decimals), bar, number(high, decimals)];
    if (step === "masked") parts.push(element("span", { class: "hatched", "aria-hidden": "true" }), "−∞");
    replace(legend, ...parts);
  }

  function paintMatrices({ query, key }) {
    const size = plots[0].cell * line.ids.length;
    for (const plot of plots) {
      const { cell } = plot;
      const context = sized(plot.cells, size, size);
      context.drawImage(plot.base, 0, 0, size, size);
      outline(context, theme.query, 0, query * cell, size, cell, 2);
      outline(context, "#ffffff", key * cell, query * cell, cell, cell, 3);
      outline(context, "#000000", key * cell, query * cell, cell, cell, 1);

      const rows = sized(plot.rows, LABEL, size);
      const columns = sized(plot.columns, size, LABEL);
      if (plot !== plots[0]) {
        rows.drawImage(plots[0].rows, 0, 0, LABEL, size); // the same labels: writing costs more than copying
        columns.drawImage(plots[0].columns, 0, 0, size, LABEL);
        continue;
      }
      line.characters.forEach((character, position) => {
        const middle = (position + 0.5) * cell;
        drawLabel(rows, character, LABEL / 2 - 1, middle, cell, position === query);
        drawLabel(columns, character, middle, LABEL / 2, cell, position === key);
      });
    }
  }

  function outline(context, colour, x, y, width, height, thickness) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    const inset = thickness / 2;
    context.strokeRect(x + inset, y + inset, width - thickness, height - thickness);
  }

  function drawLabel(context, character, x, y, cell, isMarked) {
    context.font = `${isMarked ? "bold " : ""}${Math.max(9, Math.min(13, cell))}px ${theme.mono}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = isMarked ? theme.ink : theme.muted;
    context.fillText(visible(character), x, y);
  }

  // In words

  function paintReadout({ query, key }) {
    const which = state.hovered.of ?? state;
    const { scores, scaled, masked, weights } = tables(which);
    const at = query * line.ids.length + key;
    const value = (text) => element("span", { class: "value" }, text);
    const [asking, asked] = [token(line.characters[query]), token(line.characters[key])];
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
      token(line.characters[position]),
      ` (${position}) ${number(row[position], 3)}`,
    ]);
    replace($("readout"), sentence, element("p", { class: "most" }, "Its largest weights: ", ...list));
  }

  // What comes next

  function paintChances({ query }) {
    const shownResult = state.silence ? silencedResult : result;
    const chances = model.chances(shownResult.logits, query, state.temperature); // (V,)
    const intact = model.chances(result.logits, query, state.temperature); // (V,)
    const order = Array.from(chances.keys()).sort((a, b) => chances[b] - chances[a]);
    const actual = query + 1 < line.ids.length ? line.ids[query + 1] : null;
    const percent = (chance) => `${number(100 * chance, 1)} %`;
    const list = $("chances");
    while (list.children.length < SHOWN_CHANCES) list.append(chanceRow());
    order.slice(0, SHOWN_CHANCES).forEach((id, n) => {
      const item = list.children[n];
      const [name, track, text] = item.children;
      item.className = id === actual ? "is-actual" : "";
      name.textContent = visible(data.vocabulary[id]);
      track.firstElementChild.style.width = `${100 * chances[id]}%`;
      track.lastElementChild.style.left = `${99.5 * intact[id]}%`;
      track.lastElementChild.hidden = !state.silence;
      text.textContent = percent(chances[id]);
    });

    replace(
      $("next-where"),
      "After ",
      token(line.characters[query]),
      place(query),
      actual === null ? ", the end of your line, the model expects:" : ", the model expects:",
    );
    const notes = [];
    if (actual !== null) {
      const rank = order.indexOf(actual) + 1;
      notes.push(`Your line goes on with `, token(data.vocabulary[actual]));
      notes.push(`: ${percent(chances[actual])}, ${rank === 1 ? "its favourite" : `number ${rank} on its list`}. `);
    }
    if (state.silence) notes.push("The upright marks show the chances with every head.");
    replace($("chances-note"), ...notes);
    paintWriting();
  }

  function chanceRow() {
    const intact = element("span", { class: "intact" });
    intact.hidden = true;
    const track = element("span", { class: "track", "aria-hidden": "true" }, element("span", { class: "fill" }), intact);
    return element("li", {}, element("span", { class: "token" }), track, element("span", { class: "number" }));
  }

  function paintWriting() {
    const isFull = line.ids.length >= contextLength;
    $("write").disabled = isFull;
    $("write-note").textContent = isFull ? "The context is full." : "";
  }

  /** Draw the next character from the chances at the end of the line, and append it. */
  function write() {
    const { logits } = state.silence ? silencedResult : result;
    const chances = model.chances(logits, line.ids.length - 1, state.temperature); // (V,)
    let rest = Math.random();
    let id = chances.findIndex((chance) => (rest -= chance) < 0);
    if (id < 0) id = indexOfLargest(chances); // rounding: the chances add to a hair less than one
    setLine(line.characters.join("") + data.vocabulary[id]);
  }

  // Chapter 8's numbers

  function drawChapter() {
    $("chapter-line").textContent = data.chapterLine;
    const rows = data.validationRows;
    $("chapter-text").textContent =
      `${rows.length} rows of ${contextLength} characters that the model was not trained on, and one line`;
    drawPeaks();
    drawHabits();
  }

  const ranks = ["previous", "near past", "far"];
  const RANK_COLUMNS = [1, 2, 4]; // of RANGES: where each of these heads looks most, among all heads

  /** The three heads that section 8.10 picks, and where they look at the end of its line. */
  function peaks() {
    const { characters, ids } = model.encode(data.chapterLine);
    const { tables: chapterTables } = model.forward(ids);
    return ranks.map((name, n) => {
      const chosen = indexOfLargest(measured.habits.map((row) => row[RANK_COLUMNS[n]]));
      const { layer, head } = HEADS[chosen];
      const row = chapterTables[layer][head].weights.subarray(-ids.length); // the last query's, (T,)
      const key = indexOfLargest(row);
      return { name, layer, head, character: characters[key], key, weight: row[key] };
    });
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
    replace($("peaks"), header, element("tbody", {}, ...body));
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
    replace($("habits"), header, element("tbody", {}, ...body));
  }

  const whenIdle = () =>
    new Promise((resolve) => {
      if (window.requestIdleCallback) window.requestIdleCallback(resolve, { timeout: 300 });
      else setTimeout(resolve, 20);
    });

  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  /** All that is measured on chapter 8's text, one pass at a time, so that the page stays quick. */
  async function measure() {
    let difference = 0;
    for (const { line: text, weights, chances } of data.reference) {
      await whenIdle();
      const { ids } = model.encode(text);
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
    measured.difference = difference;
    drawAgreement();

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
    drawPeaks();
    drawHabits();
    if (result) paintHeads();

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
    drawHabits();
    if (result) paintHeads();
    return measured;
  }

  let measuredOnce = null;

  function startMeasuring() {
    measuredOnce ??= measure();
    return measuredOnce;
  }

  function drawAgreement() {
    const [digits, power] = measured.difference.toExponential(1).split("e-");
    replace(
      $("agreement"),
      `Weights and chances computed here and by PyTorch differ by at most ${digits} · 10`,
      element("sup", {}, `−${power}`),
      ` over the ${data.reference.length} lines to try.`,
    );
  }

  // State

  /** Draw what depends on the selection; quick enough for every move of the pointer. */
  function paint() {
    const selected = selection();
    paintLanes(selected);
    paintArcs(selected);
    paintReadout(selected);
    paintChances(selected);
    drawPictures();
  }

  // Pictures are drawn when they come near the screen: while you type they mostly are not.
  const stale = { heads: true, matrices: true };
  const isNear = { heads: false, matrices: false };

  function watchPictures() {
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) isNear[target.id] = isIntersecting;
        if (result) drawPictures();
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
      for (const card of headCards) drawPixels(card.canvas, tables(card).weights, [0, 1], isLater);
      stale.heads = false;
    }
    if (isNear.matrices) {
      const isNew = stale.matrices;
      if (isNew) drawMatrices();
      stale.matrices = false;
      paintMatrices(selection());
      if (isNew) reveal(plots[0].table, selection());
    }
  }

  /** Draw what depends on what has changed: the text, the head, or the size and colours of the page. */
  function update({ text = false, head = false, layout = false }) {
    document.body.classList.toggle("nothing", result === null);
    $("readout").hidden = result === null;
    if (result === null) return;
    if (text || layout) {
      drawLanes();
      stale.heads = true;
    }
    if (text || head) {
      silencedResult = state.silence ? model.forward(line.ids, { layer: state.layer, head: state.head }) : null;
      for (const node of document.querySelectorAll(".chosen-head")) node.textContent = headName(state);
      paintHeads();
    }
    stale.matrices = true;
    paint();
    if (text) showQuery();
    keepState();
  }

  /** On a narrow screen a long line is wider than the page: bring the query into sight. */
  function showQuery() {
    const cell = Number($("lanes").dataset.cell);
    $("lanes").scrollLeft = (state.pinned.query + 2) * cell - $("lanes").clientWidth + tokenButtons[0].offsetLeft;
  }

  /** Read a text: encode it, run the model, select its last character. */
  function setLine(text, query = null) {
    state.text = text;
    if ($("text").value !== text) $("text").value = text;
    line = model.encode(text);
    const last = line.ids.length - 1;
    result = line.ids.length > 0 ? model.forward(line.ids) : null;
    state.pinned = { query: Math.min(query ?? last, last), key: null };
    state.hovered = { query: null, key: null };
    drawMessage();
    markSuggestion();
    update({ text: true });
  }

  function choose(layer, head) {
    state.layer = layer;
    state.head = head;
    state.pinned.key = null;
    if (result) update({ head: true });
  }

  function select(query, key = null) {
    state.pinned = { query, key };
    if (result === null) return;
    paint();
    keepState();
  }

  // The address keeps the state, so that a link shows what its sender saw

  const keepState = afterPause(200, () => {
    const parts = new URLSearchParams({ layer: state.layer, head: state.head, query: state.pinned.query });
    const hash = `#line=${encodeURIComponent(state.text)}&${parts}`;
    if (hash !== window.location.hash) window.history.replaceState(null, "", hash);
  });

  /** A whole number from the address, if it is one of the first `count`. */
  function wholeNumber(text, count) {
    return /^\d+$/.test(text ?? "") && Number(text) < count ? Number(text) : null;
  }

  function readAddress() {
    const parts = new URLSearchParams(window.location.hash.slice(1).replaceAll("+", "%2B"));
    state.layer = wholeNumber(parts.get("layer"), numLayers) ?? state.layer;
    state.head = wholeNumber(parts.get("head"), numHeads) ?? state.head;
    setLine(parts.get("line") ?? state.text, wholeNumber(parts.get("query"), contextLength));
  }

  // Start

  /** The head with the plainest habit: on chapter 8's line it looks most at the previous character. */
  function headToOpenWith() {
    const { tables: chapterTables } = model.forward(model.encode(data.chapterLine).ids);
    const oneBack = HEADS.map(({ layer, head }) => habits(chapterTables[layer][head].weights)?.[1] ?? 0);
    return HEADS[indexOfLargest(oneBack)];
  }

  function start() {
    $("model-facts").textContent =
      `${numLayers} layers of ${numHeads} heads, ${data.parameters.toLocaleString("en")} parameters, ` +
      `${model.cfg.vocabSize} characters, up to ${contextLength} at a time`;
    for (const node of document.querySelectorAll(".head-dim")) node.textContent = headDim;
    for (const node of document.querySelectorAll(".root-dim")) node.textContent = number(Math.sqrt(headDim), 2);
    readTheme();
    drawSuggestions();
    drawRamp();
    drawHeads();
    buildPlots();
    watchPictures();
    drawChapter();
    listenToTokens();
    Object.assign(state, headToOpenWith());

    $("text").addEventListener(
      "input",
      afterPause(60, () => setLine($("text").value)),
    );
    $("temperature").addEventListener("input", (event) => {
      state.temperature = Number(event.target.value);
      $("temperature-value").textContent = number(state.temperature, 1);
      if (result) paint();
    });
    $("temperature-value").textContent = number(state.temperature, 1);
    $("silence").addEventListener("change", (event) => {
      state.silence = event.target.checked;
      if (result) update({ head: true });
    });
    $("write").addEventListener("click", write);
    window.addEventListener("hashchange", () => {
      if (/[#&]line=/.test(window.location.hash)) readAddress(); // the link to the text field is no line
    });
    window.addEventListener(
      "resize",
      afterPause(100, () => update({ layout: true })),
    );
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      readTheme();
      drawRamp();
      update({ layout: true });
    });
    readAddress();
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
      ...(result && { ...selection(), tables: tables() }), // nothing of a line that holds nothing
    }),
    habits,
    peaks,
    /** A promise of what is measured on chapter 8's text. */
    get measured() {
      return startMeasuring();
    },
  };
})();
