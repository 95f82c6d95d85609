/** One colour per action, all clearly visible on light and dark surfaces. */

/** Two actions have the page's colours of left and right; more actions are spread over all hues. */
export function actionColors(count, { left, right }) {
  if (count === 2) return [left, right];
  return Array.from({ length: count }, (_, i) => `oklch(0.66 0.14 ${250 + (360 * i) / count})`);
}
