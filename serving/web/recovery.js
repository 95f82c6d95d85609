/** What a push does: how far the pole leans, and how long it takes to be upright again. */

import { degrees, STEPS_PER_SECOND } from "./physics.js";

/** Upright again: the pole stays within this angle, in rad, for this many steps. */
const UPRIGHT_ANGLE = Math.PI / 180;
const UPRIGHT_STEPS = STEPS_PER_SECOND / 2;

export class Recovery {
  /** Empty until there was a push. */
  text = "";
  #steps = null;
  #peak = 0;
  #uprightSince = null;

  start() {
    this.#steps = 0;
    this.#peak = 0;
    this.#uprightSince = null;
    this.text = "Pushed.";
  }

  clear() {
    this.#end("");
  }

  /** Record the state of the watched cart after a step. */
  add({ state: [, , angle], fell, ended }) {
    if (this.#steps === null) return;
    this.#steps += 1;
    this.#peak = Math.max(this.#peak, Math.abs(angle));
    if (Math.abs(angle) > UPRIGHT_ANGLE) this.#uprightSince = null;
    else this.#uprightSince ??= this.#steps;
    const leaned = `Pushed: the pole leaned by up to ${degrees(this.#peak).toFixed(1)}°`;
    const after = (steps) => `${(steps / STEPS_PER_SECOND).toFixed(2)} s`;
    if (fell) {
      this.#end(`${leaned}; the episode ended after ${after(this.#steps)}.`);
    } else if (this.#uprightSince !== null && this.#steps - this.#uprightSince >= UPRIGHT_STEPS) {
      this.#end(`${leaned}, and was within 1° again after ${after(this.#uprightSince)}.`);
    } else if (ended) {
      this.#end(`${leaned}; then the time limit came.`);
    } else {
      this.text = `${leaned}.`;
    }
  }

  #end(text) {
    this.#steps = null;
    this.text = text;
  }
}
