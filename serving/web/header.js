/** The header of the pages: which model they are about, and the way to its card. */

import { modelPath, SERVICE } from "./client.js";
import { find } from "./dom.js";

export function linkCard(name) {
  find("card-link").href = new URL(modelPath(name), SERVICE);
}

export function showServed(name, version) {
  find("served-model").textContent = `${name} version ${version}`;
}
