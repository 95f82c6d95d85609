/** Carts and their episodes, independent of what selects the actions. */

import { MAX_STEPS, hasFallen, observe, startState, step, strike } from "./physics.js";
import { randomNumbers } from "./seeds.js";

/** Steps for which the end of an episode is shown before the next one starts. */
const REST_STEPS = 30;

class Cart {
  /** `version` selects its actions. */
  constructor(version) {
    this.version = version;
  }

  start({ seed, spread }) {
    this.seed = seed;
    this.spread = spread;
    this.state = startState(spread, randomNumbers(seed));
    this.steps = 0;
    this.action = null;
    this.stepsByUser = 0;
    this.steered = false;
    this.dragged = false;
    this.ended = false;
    this.fell = false;
  }

  /** Who drove this episode; an episode with several drivers counts for none of them. */
  get driver() {
    if (this.dragged) return "dragged";
    if (this.stepsByUser === 0) return "policy";
    if (this.stepsByUser < this.steps) return "both";
    return this.steered ? "user" : "nobody";
  }
}

export class Carts {
  /**
   * Each start has one cart per version, and these restart together.
   *
   * `nextStart()` is called at each start: {seed, spread}.
   */
  constructor(versions, count, nextStart) {
    this.versions = versions;
    this.nextStart = nextStart;
    this.starts = Array.from({ length: count }, () => ({
      carts: versions.map((version) => new Cart(version)),
    }));
    this.all = this.starts.flatMap(({ carts }) => carts);
    this.starts.forEach((start) => this.#restart(start));
  }

  /** The cart whose policy outputs are shown, and that can be driven by hand. */
  get watched() {
    return this.all[0];
  }

  /** Restart carts whose end has been shown long enough, or `atOnce` all that have ended. */
  wake(atOnce) {
    for (const start of this.starts) {
      if (!start.carts.every((cart) => cart.ended)) continue;
      start.rested += 1;
      if (atOnce || start.rested >= REST_STEPS) this.#restart(start);
    }
  }

  #restart(start) {
    const next = this.nextStart();
    start.rested = 0;
    start.carts.forEach((cart) => cart.start(next));
  }

  /** The carts that need an action now. */
  playing() {
    return this.all.filter((cart) => !cart.ended);
  }

  strike(blow) {
    for (const cart of this.playing()) cart.state = strike(cart.state, blow);
  }

  /** Put all carts at rest at a position in m, or at a pole angle in rad. */
  drag({ position, angle }) {
    for (const cart of this.playing()) {
      const [x, , theta] = cart.state;
      cart.state = [position ?? x, 0, angle ?? theta, 0];
      cart.dragged = true;
    }
  }
}

/** The observations of carts, one row each. */
export function observations(carts) {
  return carts.map((cart) => observe(cart.state));
}

/**
 * The user's action for a cart; `direction` is -1, 0 or 1.
 *
 * CartPole has no action without a push: alternate while no direction is held.
 */
export function driveByUser(cart, direction) {
  cart.stepsByUser += 1;
  if (direction === 0) return cart.steps % 2;
  cart.steered = true;
  return Number(direction > 0);
}

/** Step one cart; returns whether its episode has ended. */
export function move(cart, action) {
  cart.state = step(cart.state, action);
  cart.action = action;
  cart.steps += 1;
  cart.fell = hasFallen(cart.state);
  cart.ended = cart.fell || cart.steps >= MAX_STEPS;
  return cart.ended;
}
