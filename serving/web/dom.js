/** Helpers for elements of the page. */

export const find = (id) => document.getElementById(id);

/** Set an element's text; an empty text hides the element. */
export function setText(element, text) {
  // Screen readers may repeat a live region whose text is set again.
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}
