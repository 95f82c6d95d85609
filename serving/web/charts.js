/** Small charts on canvases. */

import { prepare } from "./stage.js";

const ROUND = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The least round number that is no less than a positive one. */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return power * ROUND.find((factor) => factor * power >= number);
}

/** Where runs of finite numbers begin and end. */
function runs(numbers) {
  const found = [];
  numbers.forEach((number, i) => {
    if (!Number.isFinite(number)) return;
    if (found.at(-1)?.[1] === i) found.at(-1)[1] = i + 1;
    else found.push([i, i + 1]);
  });
  return found;
}

/**
 * A line chart of the latest numbers, of which there is room for `kept`.
 *
 * Its scale has 0 in it and ends at round numbers beyond `low` and `high`, so that what hardly
 * changes is a flat line.
 */
export function drawHistory(canvas, numbers, kept, { low, high }, colors) {
  const { context, width, height } = prepare(canvas);
  const top = high > 0 ? roundUp(high) : 0;
  const bottom = low < 0 ? -roundUp(-low) : 0;
  if (top === bottom) return;
  const inset = 4;
  const y = (number) => inset + ((height - 2 * inset) * (top - number)) / (top - bottom);
  const x = (index) => (width * (index + kept - numbers.length)) / (kept - 1);
  context.strokeStyle = context.fillStyle = colors.value;
  context.lineWidth = 2;
  context.lineJoin = "round";
  for (const [first, end] of runs(numbers)) {
    context.beginPath();
    for (let i = first; i < end; i += 1) context.lineTo(x(i), y(numbers[i]));
    context.stroke();
    context.lineTo(x(end - 1), y(0));
    context.lineTo(x(first), y(0));
    context.globalAlpha = 0.12;
    context.fill();
    context.globalAlpha = 1;
  }
  context.fillStyle = colors.muted;
  context.font = "11px system-ui, sans-serif";
  context.fillText(top, 4, 13);
  context.fillText(bottom, 4, height - 5);
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
