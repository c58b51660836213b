/* Canvases: one that is sharp on every screen, a table as a picture on it, hatching, and an outline.
 *
 * Legend: T tokens; row i is the query, column j the key.
 * Uses: Colours.
 */
"use strict";

(function () {
  const { channels, theme, cividis } = window.Colours;

  const isLater = (query, key) => key > query;

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

  /** A table as a picture with one pixel per cell; with hidesFuture, keys after the query are no values. */
  function drawPixels(canvas, values, [low, high], hidesFuture) {
    const T = Math.round(Math.sqrt(values.length));
    canvas.width = canvas.height = T;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(T, T);
    const hidden = channels(theme.hidden);
    values.forEach((value, n) => {
      const isHidden = hidesFuture && isLater(Math.floor(n / T), n % T);
      const rgb = isHidden ? hidden : cividis(value, low, high);
      picture.data.set([...rgb, 255], 4 * n); // red, green, blue, opaque
    });
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  /** A stripe through every cell of the future. */
  function hatchFuture(context, T, cell) {
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

  function outline(context, colour, x, y, width, height, thickness) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    const inset = thickness / 2;
    context.strokeRect(x + inset, y + inset, width - thickness, height - thickness);
  }

  window.Drawing = { isLater, sized, drawPixels, hatchFuture, outline };
})();
