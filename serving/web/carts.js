/** Carts and their episodes, independent of what selects the actions. */

import { MAX_STEPS, hasFallen, observe, startState, step, strike } from "./physics.js";

/** Steps for which the end of an episode is shown before the next one starts. */
const REST_STEPS = 30;

class Cart {
  constructor(spread) {
    this.start(spread);
  }

  start(spread) {
    this.state = startState(spread);
    this.steps = 0;
    this.action = null;
    this.stepsByUser = 0;
    this.steered = false;
    this.rest = 0;
    this.fell = false;
  }

  get ended() {
    return this.rest > 0;
  }

  /** Whose episode this is: an episode of which the user drove only a part is nobody's best. */
  get driver() {
    if (this.stepsByUser === 0) return "policy";
    if (this.stepsByUser < this.steps) return "both";
    return this.steered ? "user" : "nobody";
  }
}

export class Carts {
  /** `spread` is called at each start: how far the initial state may be from zero. */
  constructor(count, spread) {
    this.spread = spread;
    this.all = Array.from({ length: count }, () => new Cart(spread()));
  }

  /** The cart whose policy outputs are shown, and that can be driven by hand. */
  get watched() {
    return this.all[0];
  }

  /** Start new episodes: of carts that have rested long enough, or of all that have ended. */
  wake(atOnce) {
    for (const cart of this.all) {
      if (cart.ended) {
        cart.rest = atOnce ? 0 : cart.rest - 1;
        if (!cart.ended) cart.start(this.spread());
      }
    }
  }

  /** The carts that need an action now. */
  playing() {
    return this.all.filter((cart) => !cart.ended);
  }

  strike(blow) {
    for (const cart of this.playing()) cart.state = strike(cart.state, blow);
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
  if (cart.fell || cart.steps >= MAX_STEPS) cart.rest = REST_STEPS;
  return cart.ended;
}
