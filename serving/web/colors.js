/** One colour for each action, which light and dark surfaces both set off. */

/** Two actions have the page's colours of left and right; more are spread over all hues. */
export function actionColors(count, { left, right }) {
  if (count === 2) return [left, right];
  return Array.from({ length: count }, (_, i) => `oklch(0.66 0.14 ${250 + (360 * i) / count})`);
}
