/** How numbers are written, and which ones a slider offers. */

/** With five significant digits. */
export function short(number) {
  return typeof number === "number" ? String(Number(number.toPrecision(5))) : "–";
}

/** A name of a policy card as words. */
export function words(name) {
  return name.replaceAll("_", " ");
}

/** A number rounded to at least a thousandth of a range; the ends of the range stay exact. */
export function rounded(number, low, high) {
  if (number <= low) return low;
  if (number >= high) return high;
  if (number === 0) return 0;
  const [place, last] = [Math.abs(number), (high - low) / 1000].map((one) =>
    Math.floor(Math.log10(one)),
  );
  const digits = place - last + 1;
  return Number(number.toPrecision(Math.min(17, Math.max(1, digits))));
}

/** `share` of the way from the lowest to the highest number, from 0 to 1. */
export function between(low, high, share) {
  return rounded(low * (1 - share) + high * share, low, high);
}

/**
 * Typical numbers of an observation: their medians in the last evaluation if the card has
 * histograms, else the middle of the ranges that training saw.
 */
export function typical({ seen_low, seen_high, histograms }) {
  return seen_low.map((low, i) => {
    const middle = histograms
      ? median(histograms.edges[i], histograms.shares[i], low)
      : between(low, seen_high[i], 0.5);
    return rounded(middle, low, seen_high[i]);
  });
}

/** The median of a histogram whose edges are deciles: the edge below which half of the rows are. */
function median(edges, shares, lowest) {
  let sum = 0;
  // Shares are of whole rows: five tenths can add up to a little over 0.5, but never to 0.55.
  const bin = shares.findIndex((share) => (sum += share) > 0.55);
  return bin > 0 ? edges[bin - 1] : lowest;
}

/** A list as rows of `columns` each. */
export function inRows(list, columns) {
  return Array.from({ length: list.length / columns }, (_, row) =>
    list.slice(row * columns, (row + 1) * columns),
  );
}

/** JSON has no NaN: the service sends null instead. */
export function numberOf(value) {
  return typeof value === "number" ? value : NaN;
}

/** Format a number; NaN is shown as such, never hidden, and a rounded 0 has no sign. */
export function fixed(number, digits, unit = "") {
  if (!Number.isFinite(number)) return "not a number";
  const text = number.toFixed(digits).replace(/^-(?=[0.]+$)/, "");
  return `${text}${unit && ` ${unit}`}`;
}
