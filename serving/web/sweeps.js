/** What the policy answers if one number of an observation varies and the others stay. */

import { between } from "./numbers.js";
import { prepare } from "./stage.js";

/** Values per swept number: fewer for large observations, as a request's size is limited. */
const MOST_CELLS = 41;
const LEAST_CELLS = 8;
const MOST_NUMBERS = 24_000;

/** How many values to ask about for each of `count` numbers; 0 if that would be too few. */
export function sweepCells(size, count) {
  const cells = Math.min(MOST_CELLS, Math.floor(MOST_NUMBERS / (size * count)));
  return cells < LEAST_CELLS ? 0 : cells;
}

/** Rows for a request: for each column in turn, its range in equal steps. */
export function sweepRows(row, columns, { seen_low, seen_high }, cells) {
  return columns.flatMap((column) =>
    Array.from({ length: cells }, (_, i) =>
      row.with(column, between(seen_low[column], seen_high[column], i / (cells - 1))),
    ),
  );
}

/** Draw the probabilities `[cells][actions]` as columns of stacked colours. */
export function drawSweep(canvas, cells, colors) {
  const { context, width, height } = prepare(canvas);
  cells.forEach((probabilities, i) => {
    const [left, right] = [i, i + 1].map((edge) => Math.round((edge * width) / cells.length));
    let bottom = height;
    probabilities.forEach((probability, action) => {
      context.fillStyle = colors[action];
      context.fillRect(left, bottom - probability * height, right - left, probability * height);
      bottom -= probability * height;
    });
  });
}
