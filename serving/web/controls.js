/** Buttons, keys and the pointer, mapped to actions of the page. */

import { find } from "./dom.js";
import { connectPointer } from "./pointer.js";
import { settings } from "./settings.js";

/** In newton seconds: large enough to see, small enough for a good policy to recover from. */
const CART_BLOW = 0.5;
const TIP_BLOW = 0.025;

/** The direction that the user holds, -1, 0 or 1, and by which key, pointer or button. */
export const held = { direction: 0, by: null };

/** Handle the release of a key, pointer or button: only the one that started driving ends it. */
function release(by) {
  if (by === held.by) held.direction = 0;
}

/**
 * Connect all controls.
 *
 * `actions` has pause(), step(), reset(), changed(), strike(blow), drag(place), drop() and, for the
 * pointer, carts().
 */
export function connect(actions) {
  find("pause").addEventListener("click", actions.pause);
  find("pause").addEventListener("keydown", (event) => {
    if (event.repeat && event.key === "Enter") event.preventDefault(); // or each repeat clicks
  });
  find("step").addEventListener("click", actions.step);
  find("reset").addEventListener("click", actions.reset);
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("controls").addEventListener("change", (event) => {
    nameDriveButtons();
    // After a selection with the pointer, the arrow keys must drive the cart again.
    if (!event.target.matches(":focus-visible")) event.target.blur();
    if (event.target.matches("[name=count], #spread, #beside")) actions.reset();
    else actions.changed();
  });
  nameDriveButtons();

  const push = (direction, by) => {
    if (settings.byUser) Object.assign(held, { direction, by });
    else actions.strike({ cart: direction * CART_BLOW });
  };
  const hit = (direction) => actions.strike({ tip: direction * TIP_BLOW });
  connectButtons(push, hit);
  connectKeys(push, hit, actions);
  connectPointer(push, hit, actions);
  for (const type of ["pointerup", "pointercancel"]) {
    window.addEventListener(type, ({ pointerId }) => release(pointerId));
  }
  window.addEventListener("blur", () => (held.direction = 0));
}

/** Label the button with what it will do. */
export function showPaused(paused) {
  find("pause").textContent = paused ? "Play" : "Pause";
}

function nameDriveButtons() {
  const verb = settings.byUser ? "Drive" : "Push";
  find("cart-left").textContent = `${verb} cart left`;
  find("cart-right").textContent = `${verb} cart right`;
  held.direction = 0;
}

function connectButtons(push, hit) {
  for (const [side, direction] of [["left", -1], ["right", 1]]) {
    find(`pole-${side}`).addEventListener("click", () => hit(direction));
    const drive = find(`cart-${side}`);
    // A click pushes once; driving lasts while the button is held.
    drive.addEventListener("click", () => settings.byUser || push(direction));
    drive.addEventListener("pointerdown", ({ pointerId }) => {
      if (settings.byUser) push(direction, pointerId);
    });
    drive.addEventListener("keydown", (event) => {
      if (settings.byUser && (event.key === " " || event.key === "Enter")) push(direction, drive);
    });
    // A button that has lost the focus does not receive the key's release.
    for (const type of ["keyup", "blur"]) drive.addEventListener(type, () => release(drive));
  }
}

function connectKeys(push, hit, actions) {
  const directions = { ArrowLeft: -1, ArrowRight: 1 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || usesKeys(event.target)) return;
    const direction = directions[event.key];
    if (direction !== undefined) {
      event.preventDefault();
      if (event.repeat) return;
      if (event.shiftKey) hit(direction);
      else push(direction, event.key);
    } else if (event.key === " " && !event.target.closest("button, a, summary")) {
      event.preventDefault();
      if (!event.repeat) actions.pause();
    }
  });
  document.addEventListener("keyup", ({ key }) => release(key));
}

/** Whether the element handles the arrow keys and the space bar itself. */
function usesKeys(target) {
  return target.matches("input, select, textarea");
}
