/** Small charts on canvases. */

import { prepare } from "./stage.js";

/** A line chart of the latest numbers, scaled from their minimum to their maximum. */
export function drawHistory(canvas, numbers, kept, colors) {
  const { context, width, height } = prepare(canvas);
  const finite = numbers.filter(Number.isFinite);
  if (finite.length < 2) return;
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const range = high - low || 1;
  const inset = 4;
  context.strokeStyle = colors.right;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  let drawing = false;
  numbers.forEach((number, index) => {
    if (!Number.isFinite(number)) {
      drawing = false;
      return;
    }
    const x = (width * (index + kept - numbers.length)) / (kept - 1);
    const y = height - inset - ((height - 2 * inset) * (number - low)) / range;
    if (drawing) context.lineTo(x, y);
    else context.moveTo(x, y);
    drawing = true;
  });
  context.stroke();
  context.fillStyle = colors.muted;
  context.font = "11px system-ui, sans-serif";
  context.fillText(high.toFixed(1), 2, 11);
  context.fillText(low.toFixed(1), 2, height - 3);
}

/**
 * Probabilities as colours, `rows[i][j]` from bottom to top and from left to right:
 * 0 is the colour `left`, 1 is `right`, and a half is the page's surface.
 */
export function drawHeatMap(canvas, rows, colors) {
  const { context, width, height } = prepare(canvas);
  const [cellWidth, cellHeight] = [width / rows[0].length, height / rows.length];
  rows.forEach((row, i) => {
    row.forEach((probability, j) => {
      const [x, y] = [Math.floor(j * cellWidth), Math.floor(height - (i + 1) * cellHeight)];
      const box = [x, y, Math.ceil(cellWidth) + 1, Math.ceil(cellHeight) + 1];
      context.globalAlpha = 1;
      context.fillStyle = colors.surface;
      context.fillRect(...box);
      context.globalAlpha = Math.abs(2 * probability - 1);
      context.fillStyle = probability < 0.5 ? colors.left : colors.right;
      context.fillRect(...box);
    });
  });
  context.globalAlpha = 1;
}
