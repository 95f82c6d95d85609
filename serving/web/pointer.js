/** The pointer on the picture: clicks push, dragging moves the cart or turns the pole. */

import { find } from "./dom.js";
import { ANGLE_LIMIT, POSITION_LIMIT } from "./physics.js";
import { settings } from "./settings.js";
import { worldAt } from "./stage.js";

/** A pointer that moves this far, in CSS pixels, drags. */
const DRAG_PIXELS = 5;
/** Height above the joint, in metres, from which the pointer takes the pole, not the cart. */
const POLE_FROM = 0.1;
/** Dragging stays within this share of the limits, at which the episode would end. */
const WITHIN = 0.95;

const clamp = (number, limit) => Math.min(limit, Math.max(-limit, number));

/**
 * `push` and `hit` take a direction, `push` also the pointer that holds it; `actions` are those of
 * `connect`.
 */
export function connectPointer(push, hit, actions) {
  const canvas = find("stage");
  let pressed = null;
  let dragged = false;

  const pointerAt = (event) => worldAt(canvas, event, actions.carts().all.length);
  const atPointer = (event) => {
    const { index, x, y } = pointerAt(event);
    const [position, , angle] = actions.carts().all[index].state;
    const isHigh = y > POLE_FROM;
    return { isHigh, side: x < position + (isHigh ? Math.sin(angle) * y : 0) ? -1 : 1 };
  };

  // A second finger neither begins a drag nor ends one.
  const listen = (type, react) =>
    canvas.addEventListener(type, (event) => event.isPrimary && react(event));

  listen("pointerdown", (event) => {
    dragged = false;
    // A driven cart follows the pointer.
    if (settings.byUser) push(atPointer(event).side, event.pointerId);
    else pressed = { event, isHigh: atPointer(event).isHigh };
  });
  listen("pointermove", (event) => {
    // Released outside the picture, which receives such events only during a drag.
    if (event.buttons === 0) pressed = null;
    if (pressed === null) return;
    const { clientX, clientY } = pressed.event;
    if (!dragged && Math.hypot(event.clientX - clientX, event.clientY - clientY) < DRAG_PIXELS) return;
    if (!dragged) canvas.setPointerCapture(event.pointerId);
    dragged = true;
    const { index, x, y } = pointerAt(event);
    if (pressed.isHigh) {
      const angle = Math.atan2(x - actions.carts().all[index].state[0], Math.max(y, POLE_FROM));
      actions.drag({ angle: clamp(angle, WITHIN * ANGLE_LIMIT) });
    } else {
      actions.drag({ position: clamp(x, WITHIN * POSITION_LIMIT) });
    }
  });
  for (const type of ["pointerup", "pointercancel"]) {
    listen(type, () => {
      pressed = null;
      if (dragged) actions.drop();
    });
  }
  // A push comes from the pointer's side.
  canvas.addEventListener("click", (event) => {
    if (settings.byUser || dragged) return;
    const { isHigh, side } = atPointer(event);
    if (isHigh) hit(-side);
    else push(-side);
  });
}
