/** Messages about the carts: as text on the page, and for screen readers. */

import { find, setText } from "./dom.js";
import { showServed } from "./header.js";
import { announce } from "./notices.js";
import { degrees } from "./physics.js";

const WARNING_STAYS_MS = 2000;
const DRIVERS = {
  policy: "Driven by the policy",
  user: "Driven by you",
  both: "Driven by you and by the policy, so it counts for neither",
  dragged: "Dragged by you, so it counts for neither",
  nobody: "You did not steer",
};

let warnedAt = -Infinity;
let shown = null;

/** Show the model that answers, and say so when it changes. */
export function showModel({ name, version }) {
  if (shown !== null && shown.name === name && shown.version === version) return;
  if (shown !== null) announce(`Now served: ${name} version ${version}.`);
  shown = { name, version };
  showServed(name, version);
}

/** Say how an episode ended. */
export function showEpisode({ driver, steps, fell }) {
  const end = fell ? "it fell" : "the time limit";
  setText(find("last-episode"), `${DRIVERS[driver]}: ${steps} steps, then ${end}.`);
}

export function showWarnings(warnings) {
  if (!warnings?.length) return;
  if (find("warnings").hidden) announce("The service warns: outside the ranges that training saw.");
  warnedAt = performance.now();
  const more = warnings.length > 1 ? ` (and ${warnings.length - 1} more)` : "";
  setText(find("warnings"), `The service warns: ${warnings[0]}${more}`);
  find("warnings").title = warnings.join("\n");
}

export function hideOldWarnings() {
  if (performance.now() - warnedAt > WARNING_STAYS_MS) setText(find("warnings"), "");
}

/** Describe the picture. */
export function describe(carts) {
  const [position, , angle] = carts.watched.state;
  const many = carts.all.length > 1 ? `${carts.all.length} carts. The first: ` : "";
  find("stage").setAttribute(
    "aria-label",
    `${many}Cart at ${position.toFixed(2)} m, pole leaning ${degrees(angle).toFixed(1)} degrees, ` +
      `step ${carts.watched.steps}`,
  );
}
