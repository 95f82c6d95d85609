/** The phase plane of the pole: its angle and angular velocity, and the action in each state. */

import { ANGLE_LIMIT, STEPS_PER_SECOND } from "./physics.js";
import { prepare } from "./stage.js";

const KEPT = 3 * STEPS_PER_SECOND;
/** Angular velocity at the edges, in rad/s. */
const VELOCITY_SHOWN = 2;

/** The latest states of one cart's episode, each with the action that was taken in it. */
export class Trail {
  points = [];

  /** Record that a cart is about to move. */
  add({ steps, state: [, , angle, velocity] }, action) {
    if (steps === 0) this.clear();
    this.points.push({ angle, velocity, action });
    if (this.points.length > KEPT) this.points.shift();
  }

  clear() {
    this.points = [];
  }
}

/** Draw a trail, older points fainter, and the current state of its cart. */
export function drawPhase(canvas, { points }, { state: [, , angle, velocity] }, colors) {
  const { context, width, height } = prepare(canvas);
  const x = (radians) => (width / 2) * (1 + radians / ANGLE_LIMIT);
  const y = (speed) => (height / 2) * (1 - speed / VELOCITY_SHOWN);
  const dot = (point, radius, color) => {
    context.fillStyle = color;
    context.beginPath();
    context.arc(x(point.angle), y(point.velocity), radius, 0, 2 * Math.PI);
    context.fill();
  };
  drawAxes(context, width, height, colors);
  points.forEach((point, i) => {
    context.globalAlpha = 0.15 + 0.85 * ((i + 1) / points.length) ** 2;
    dot(point, 2.5, point.action === 1 ? colors.right : colors.left);
  });
  context.globalAlpha = 1;
  dot({ angle, velocity }, 5, colors.ink);
}

function drawAxes(context, width, height, colors) {
  context.strokeStyle = colors.line;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, height / 2);
  context.lineTo(width, height / 2);
  context.moveTo(width / 2, 0);
  context.lineTo(width / 2, height);
  context.stroke();
  context.fillStyle = colors.muted;
  context.font = "11px system-ui, sans-serif";
  const degrees = Math.round((ANGLE_LIMIT * 180) / Math.PI);
  for (const [text, align, left, top] of [
    [`−${degrees}°`, "left", 4, height / 2 + 13],
    [`${degrees}°`, "right", width - 4, height / 2 + 13],
    [`${VELOCITY_SHOWN} rad/s`, "left", width / 2 + 4, 13],
    [`−${VELOCITY_SHOWN} rad/s`, "left", width / 2 + 4, height - 5],
  ]) {
    context.textAlign = align;
    context.fillText(text, left, top);
  }
}
