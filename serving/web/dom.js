/** Elements of the page. */

export const find = (id) => document.getElementById(id);

/** Put a text into an element, and hide the element if there is none. */
export function tell(element, text) {
  // A live region that is set to the same text again may be read out again.
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}
