/** The heat map of a CartPole policy, on its card page. */

import { drawHeatMap } from "./charts.js";
import { RefusedError } from "./client.js";
import { find } from "./dom.js";
import { untilAnswered } from "./notices.js";
import { inRows } from "./numbers.js";
import { ANGLE_LIMIT } from "./physics.js";
import { pageColors, prepare } from "./stage.js";
import { tableRow } from "./tables.js";

const CELLS = 41;
/** Every fifth cell is a column or a row of the table. */
const TABLE_STRIDE = 5;

/** The columns of the pole's angle and its angular velocity; null if there are none. */
export function heatColumns({ names }) {
  const columns = ["pole_angle", "pole_angular_velocity"].map((name) => names.indexOf(name));
  return columns.includes(-1) ? null : columns;
}

/** Numbers from -limit to +limit, both included. */
function across(limit) {
  return Array.from({ length: CELLS }, (_, i) => limit * ((2 * i) / (CELLS - 1) - 1));
}

export class HeatMap {
  #map = null;
  #point = null;

  /** Make room for the map and write its axes, so that the answer moves nothing. */
  constructor({ names, seen_low, seen_high }, [angle, velocity]) {
    Object.assign(this, { names, angle, velocity });
    this.limit = Math.max(-seen_low[velocity], seen_high[velocity]);
    for (const [axis, limit] of Object.entries({ angle: ANGLE_LIMIT, velocity: this.limit })) {
      find(`${axis}-low`).textContent = (-limit).toFixed(2);
      find(`${axis}-high`).textContent = limit.toFixed(2);
    }
    find("heat-section").hidden = false;
  }

  /** Ask a version, and show its answer. */
  async show(client, version) {
    const [angles, velocities] = [across(ANGLE_LIMIT), across(this.limit)];
    const rows = velocities.flatMap((speed) =>
      angles.map((lean) =>
        this.names.map((_, i) => (i === this.angle ? lean : i === this.velocity ? speed : 0)),
      ),
    );
    const decision = await untilAnswered(client, () => version.act(rows, true));
    const right = decision.action_probabilities.map((probabilities) => probabilities[1]);
    if (!right.every(Number.isFinite)) {
      throw new RefusedError("a probability of the action right is not a number");
    }
    this.#map = inRows(right, CELLS);
    find("heat-section").classList.remove("pending");
    new ResizeObserver(() => this.#draw()).observe(find("heat"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.#fillTable(angles, velocities);
  }

  /** Put the ring where an observation is. */
  mark(row) {
    this.#point = [row[this.angle] / ANGLE_LIMIT, row[this.velocity] / this.limit];
    this.#draw();
  }

  #draw() {
    if (this.#map === null) return;
    const { context, width, height } = prepare(find("heat"));
    drawHeatMap({ context, width, height }, this.#map, pageColors());
    if (this.#point === null) return;
    const [x, y] = this.#point;
    context.strokeStyle = pageColors().ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(((1 + x) / 2) * width, ((1 - y) / 2) * height, 6, 0, 2 * Math.PI);
    context.stroke();
  }

  #fillTable(angles, velocities) {
    const some = (_, i) => i % TABLE_STRIDE === 0;
    const head = tableRow(["rad/s \\ rad", ...angles.filter(some).map((a) => a.toFixed(2))]);
    find("heat-angles").replaceChildren(head);
    const rows = this.#map.map((row, i) =>
      tableRow([velocities[i].toFixed(2), ...row.filter(some).map((p) => Math.round(100 * p))]),
    );
    find("heat-rows").replaceChildren(...rows.filter(some).reverse());
  }
}
