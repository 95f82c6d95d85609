/** What the user has chosen in the page's controls. */

import { find } from "./dom.js";

const checked = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

export const settings = {
  get greedy() {
    return checked("actions") === "greedy";
  },
  get byUser() {
    return checked("driver") === "user";
  },
  get count() {
    return Number(checked("count"));
  },
  get spread() {
    return Number(find("spread").value);
  },
  /** The version beside the served one; null if none. */
  get beside() {
    return Number(find("beside").value) || null;
  },
  get speed() {
    return Number(find("speed").value);
  },
};
