/** Many carts and their episodes; who decides is none of their business. */

import { MAX_STEPS, hasFallen, observe, startState, step, strike } from "./physics.js";

/** Steps for which a finished episode stays in sight before the next one starts. */
const REST_STEPS = 30;

class Cart {
  constructor(spread) {
    this.start(spread);
  }

  start(spread) {
    this.state = startState(spread);
    this.steps = 0;
    this.action = null;
    this.byHand = false;
    this.rest = 0;
    this.fell = false;
  }

  get ended() {
    return this.rest > 0;
  }
}

export class Carts {
  /** `spread` is a function, asked at each start: how far from upright it may be. */
  constructor(count, spread) {
    this.spread = spread;
    this.all = Array.from({ length: count }, () => new Cart(spread()));
  }

  /** The one whose decisions are shown in detail, and that can be driven by hand. */
  get watched() {
    return this.all[0];
  }

  /** Let finished episodes rest for one more step, or not at all, and start new ones. */
  wake(atOnce) {
    for (const cart of this.all) {
      if (cart.ended) {
        cart.rest = atOnce ? 0 : cart.rest - 1;
        if (!cart.ended) cart.start(this.spread());
      }
    }
  }

  /** The carts to be decided about now. */
  playing() {
    return this.all.filter((cart) => !cart.ended);
  }

  strike(blow) {
    for (const cart of this.playing()) cart.state = strike(cart.state, blow);
  }
}

/** The observations of some carts, a row for each. */
export function observations(carts) {
  return carts.map((cart) => observe(cart.state));
}

/** Move one cart by one step; whether its episode ended with that. */
export function move(cart, action) {
  cart.state = step(cart.state, action);
  cart.action = action;
  cart.steps += 1;
  cart.fell = hasFallen(cart.state);
  if (cart.fell || cart.steps >= MAX_STEPS) cart.rest = REST_STEPS;
  return cart.ended;
}
