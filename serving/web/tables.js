/** Tables of the card page. */

import { find } from "./dom.js";

/**
 * A table row; its first cell is the header.
 *
 * On phones, CSS shows the cells of some tables as blocks, which removes their meaning for screen
 * readers: so explicit roles give it.
 */
export function tableRow([header, ...cells], labels = []) {
  const row = document.createElement("tr");
  const first = document.createElement("th");
  [first.scope, first.textContent] = ["row", header];
  first.setAttribute("role", "rowheader");
  row.setAttribute("role", "row");
  row.append(first);
  cells.forEach((text, i) => {
    const cell = row.insertCell();
    cell.setAttribute("role", "cell");
    cell.textContent = text;
    // Shown on phones, where the head of the table is hidden.
    if (labels[i] !== undefined) cell.dataset.label = labels[i];
  });
  return row;
}

/** Fill a table's body; each cell has the label of its column. */
export function fillTable(id, rows) {
  const heads = find(id).closest("table").querySelectorAll("thead th");
  const labels = [...heads].slice(1).map(({ textContent }) => textContent);
  find(id).replaceChildren(...rows.map((row) => tableRow(row, labels)));
}
