/**
 * The plane of the pole's angle and angular velocity: what the policy does in each state, where the
 * carts are, and where the first one was.
 */

import { drawHeatMap } from "./charts.js";
import { inRows } from "./numbers.js";
import { ANGLE_LIMIT, degrees, STEPS_PER_SECOND } from "./physics.js";
import { drawLabel, prepare } from "./stage.js";

const TRAIL_KEPT = 3 * STEPS_PER_SECOND;
/** Angular velocity at the edges, in rad/s. */
const VELOCITY_SHOWN = 2;
/** Numbers of columns and rows of the map. */
const [COLUMNS, ROWS] = [25, 19];
/** Changes of the cart, in m and m/s, that make the map outdated. */
const [POSITION_CHANGE, VELOCITY_CHANGE] = [0.05, 0.1];

/** The middle of each of `count` cells from -limit to +limit. */
function middles(limit, count) {
  return Array.from({ length: count }, (_, i) => limit * ((2 * i + 1) / count - 1));
}

/** The latest states of one cart's episode, each with the action that was taken in it. */
export class Trail {
  points = [];

  /** Record that a cart is about to move. */
  add({ steps, state: [, , angle, velocity] }, action) {
    if (steps === 0) this.clear();
    this.points.push({ angle, velocity, action });
    if (this.points.length > TRAIL_KEPT) this.points.shift();
  }

  clear() {
    this.points = [];
  }
}

/** The probability of pushing right in each cell, for a cart where the first one is. */
export class PolicyMap {
  rows = null;
  #of = null;

  /** Ask again if the cart has moved, or another version answers. */
  async refresh(version, { state: [position, velocity] }) {
    if (this.#shows(version, position, velocity)) return;
    const observations = middles(VELOCITY_SHOWN, ROWS).flatMap((speed) =>
      middles(ANGLE_LIMIT, COLUMNS).map((angle) => [position, velocity, angle, speed]),
    );
    const { action_probabilities: all } = await version.act(observations, true);
    this.#of = { path: version.path, position, velocity };
    this.rows = inRows(all.map(([, right]) => right), COLUMNS);
  }

  #shows({ path }, position, velocity) {
    return (
      this.#of?.path === path &&
      Math.abs(position - this.#of.position) < POSITION_CHANGE &&
      Math.abs(velocity - this.#of.velocity) < VELOCITY_CHANGE
    );
  }
}

/** Draw the map, the trail, older points fainter, and the carts' states; the first is larger. */
export function drawPlane(canvas, map, { points }, carts, colors) {
  const area = prepare(canvas);
  const { context, width, height } = area;
  if (map.rows !== null) drawHeatMap(area, map.rows, colors);
  drawAxes(context, width, height, colors);
  const at = (angle, velocity) => [
    (width / 2) * (1 + angle / ANGLE_LIMIT),
    (height / 2) * (1 - velocity / VELOCITY_SHOWN),
  ];
  const dot = ([x, y], radius, fill, edge) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
    context.strokeStyle = edge;
    context.lineWidth = 1;
    context.stroke();
  };
  points.forEach(({ angle, velocity, action }, i) => {
    context.globalAlpha = 0.15 + 0.85 * ((i + 1) / points.length) ** 2;
    dot(at(angle, velocity), 3, action === 1 ? colors.right : colors.left, colors.surface);
  });
  context.globalAlpha = 1;
  for (const { state, version } of carts.slice(1)) {
    const place = at(state[2], state[3]);
    if (version === carts[0].version) dot(place, 2, colors.ink, colors.ink);
    else dot(place, 6, colors.pole, colors.ink);
  }
  const [, , angle, velocity] = carts[0].state;
  dot(at(angle, velocity), 6, colors.ink, colors.surface);
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
  const limit = Math.round(degrees(ANGLE_LIMIT));
  for (const [text, align, left, top] of [
    [`−${limit}°`, "left", 4, height / 2 + 13],
    [`${limit}°`, "right", width - 4, height / 2 + 13],
    [`${VELOCITY_SHOWN} rad/s`, "left", width / 2 + 4, 13],
    [`−${VELOCITY_SHOWN} rad/s`, "left", width / 2 + 4, height - 5],
  ]) {
    drawLabel(context, text, align, left, top, colors);
  }
}
