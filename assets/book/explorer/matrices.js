/* Inside the chosen head: its four tables, from dot products to weights, and how one moves through them.
 *
 * Legend: T tokens; row i is the query, column j the key.
 * Uses: Words, Colours, Drawing, State.
 */
"use strict";

(function () {
  const { $, element, visible, number } = window.Words;
  const { theme, inkOn, cividis, cividisBar } = window.Colours;
  const { isLater, sized, drawPixels, hatchFuture, outline } = window.Drawing;
  const { state, tables, selection, select, hover, forgetHover } = window.State;

  const STEPS = ["scores", "scaled", "masked", "weights"];
  const HIDDEN = { masked: "−∞", weights: "exactly 0" }; // the steps that hide the future, and what stands there
  const LABEL = 18; // pixels beside and above a table
  let plots = [];

  // Building, once

  function build() {
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
      plot.replaceChildren(table, legend);
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
      const T = state.line.ids.length;
      const [i, j] = [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at / box.width) * T));
      return i >= 0 && j >= 0 && i < T && j < T ? { query: i, key: j } : null;
    };
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const cell = cellAt(event);
      if (cell === null || (cell.query === state.hovered.query && cell.key === state.hovered.key)) return;
      hover(cell);
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
      const inside = (position) => Math.min(state.line.ids.length - 1, Math.max(0, position));
      forgetHover();
      select(inside(query + moves[event.key][0]), inside(key + moves[event.key][1]));
      reveal(selection(), table);
    });
  }

  /** Scroll a table, and with it the others, so that a cell can be seen. */
  function reveal({ query, key }, table = plots[0].table) {
    const cell = plots[0].cell;
    const into = (start, size, at) => {
      const room = size - LABEL - cell;
      return Math.min(at * cell, Math.max(start, at * cell - room));
    };
    table.scrollLeft = into(table.scrollLeft, table.clientWidth, key);
    table.scrollTop = into(table.scrollTop, table.clientHeight, query);
  }

  // Drawing, for another line or head: costly, so it is kept as each plot's base

  function draw() {
    const T = state.line.ids.length;
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

  function limitsOf(step, values) {
    if (step === "weights") return [0, 1];
    const finite = Array.from(values).filter(Number.isFinite);
    return [Math.min(...finite), Math.max(...finite)];
  }

  /** A table as it looks with nothing selected. */
  function drawBase(step, values, limits, cell) {
    const T = state.line.ids.length;
    const size = cell * T;
    const base = document.createElement("canvas");
    const context = sized(base, size, size);
    const hidesFuture = step in HIDDEN;
    const pixels = drawPixels(document.createElement("canvas"), values, limits, hidesFuture);
    context.imageSmoothingEnabled = false;
    context.drawImage(pixels, 0, 0, size, size);
    if (hidesFuture) hatchFuture(context, T, cell);
    if (cell > 11) {
      context.fillStyle = theme.page; // a thin line between cells that are large enough
      for (let n = 1; n <= T; n++) {
        context.fillRect(n * cell - 1, 0, 1, size);
        context.fillRect(0, n * cell - 1, size, 1);
      }
    }
    if (cell >= 34) writeValues(context, values, limits, cell, hidesFuture);
    return base;
  }

  /** The numbers themselves, where cells have room for them. */
  function writeValues(context, values, [low, high], cell, hidesFuture) {
    const T = state.line.ids.length;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    values.forEach((value, n) => {
      const [i, j] = [Math.floor(n / T), n % T];
      context.fillStyle = hidesFuture && isLater(i, j) ? theme.ink : inkOn(cividis(value, low, high));
      const text = number(value, Math.abs(value) < 10 ? 2 : 1);
      context.fillText(text, (j + 0.5) * cell, (i + 0.5) * cell);
    });
  }

  function drawLegend({ step, legend }, low, high) {
    const decimals = step === "weights" ? 0 : 1;
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.background = cividisBar();
    const parts = [number(low, decimals), bar, number(high, decimals)];
    if (step in HIDDEN) parts.push(element("span", { class: "hatched", "aria-hidden": "true" }), HIDDEN[step]);
    legend.replaceChildren(...parts);
  }

  // Marking, for another selection

  function paint({ query, key }) {
    const { characters } = state.line;
    const size = plots[0].cell * characters.length;
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
      characters.forEach((character, position) => {
        const middle = (position + 0.5) * cell;
        drawLabel(rows, character, LABEL / 2 - 1, middle, cell, position === query);
        drawLabel(columns, character, middle, LABEL / 2, cell, position === key);
      });
    }
  }

  function drawLabel(context, character, x, y, cell, isMarked) {
    context.font = `${isMarked ? "bold " : ""}${Math.max(9, Math.min(13, cell))}px ${theme.mono}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = isMarked ? theme.ink : theme.muted;
    context.fillText(visible(character), x, y);
  }

  window.Matrices = { build, draw, paint, reveal };
})();
