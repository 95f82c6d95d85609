/** Helpers for elements of the page. */

export const find = (id) => document.getElementById(id);

/** Set an element's text; an empty text hides the element. */
export function setText(element, text) {
  // Screen readers may repeat a live region whose text is set again.
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}

/** A link. */
export function anchorTo(address, text) {
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.textContent = text;
  return anchor;
}

/** Fill a description list. */
export function fillList(list, facts) {
  list.replaceChildren(
    ...Object.entries(facts).flatMap(([term, text]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [term, text];
      return [dt, dd];
    }),
  );
}
