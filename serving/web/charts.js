/** Small charts on canvases. */

import { drawLabel, prepare } from "./stage.js";

/** Opacity in a heat map at probability 0 or 1: what is drawn on top stays visible. */
const MOST_OPAQUE = 0.7;
const ROUND = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The smallest round number that is not below a given positive one. */
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

/** The ends of a scale that includes 0, rounded outwards from the lowest and the highest. */
export function roundScale({ low, high }) {
  return { top: high > 0 ? roundUp(high) : 0, bottom: low < 0 ? -roundUp(-low) : 0 };
}

/**
 * A line chart of the latest numbers, with room for `kept` of them.
 *
 * The area between the line and `base` is filled, with one colour above and one below; `marks` are
 * indices at which something happened.
 */
export function drawHistory(canvas, numbers, { kept, top, bottom, base, sides, labels, marks }, colors) {
  const { context, width, height } = prepare(canvas);
  if (top === bottom) return;
  const inset = 4;
  const y = (number) => inset + ((height - 2 * inset) * (top - number)) / (top - bottom);
  const x = (index) => (width * (index + kept - numbers.length)) / (kept - 1);
  for (const index of marks) {
    context.fillStyle = colors.muted;
    context.fillRect(Math.round(x(index)) - 1, 0, 2, height);
  }
  context.lineWidth = 2;
  context.lineJoin = "round";
  const halves = [[0, y(base), sides[0]], [y(base), height - y(base), sides[1]]];
  for (const [start, size, color] of halves) {
    context.save();
    context.beginPath();
    context.rect(0, start - (start > 0 ? 0 : 1), width, size + 1);
    context.clip();
    context.strokeStyle = context.fillStyle = color;
    for (const [first, end] of runs(numbers)) {
      context.beginPath();
      for (let i = first; i < end; i += 1) context.lineTo(x(i), y(numbers[i]));
      context.stroke();
      context.lineTo(x(end - 1), y(base));
      context.lineTo(x(first), y(base));
      context.globalAlpha = 0.12;
      context.fill();
      context.globalAlpha = 1;
    }
    context.restore();
  }
  drawLabel(context, labels[0], "left", 4, 13, colors);
  drawLabel(context, labels[1], "left", 4, height - 5, colors);
}

/**
 * Probabilities as colours, `rows[i][j]` from bottom to top and from left to right:
 * 0 is the colour `left`, 1 is `right`; a half and NaN are the colour of the page's surface.
 */
export function drawHeatMap({ context, width, height }, rows, colors) {
  const [cellWidth, cellHeight] = [width / rows[0].length, height / rows.length];
  rows.forEach((row, i) => {
    row.forEach((probability, j) => {
      const [x, y] = [Math.floor(j * cellWidth), Math.floor(height - (i + 1) * cellHeight)];
      const box = [x, y, Math.ceil(cellWidth) + 1, Math.ceil(cellHeight) + 1];
      context.globalAlpha = 1;
      context.fillStyle = colors.surface;
      context.fillRect(...box);
      if (!Number.isFinite(probability)) return;
      context.globalAlpha = MOST_OPAQUE * Math.abs(2 * probability - 1);
      context.fillStyle = probability < 0.5 ? colors.left : colors.right;
      context.fillRect(...box);
    });
  });
  context.globalAlpha = 1;
}
