/** The header of the pages: which model they are about, and the way to its card. */

import { SERVICE } from "./client.js";
import { find } from "./dom.js";

export function linkCard(name) {
  find("card-link").href = new URL(`models/${encodeURIComponent(name)}`, SERVICE);
}

export function showServed(name, version) {
  find("served-model").textContent = `${name} version ${version}`;
}
