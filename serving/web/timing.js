/** Time: round trips, rates, and when the next step is due. */

const KEPT_ROUND_TRIPS = 500;
const RATE_WINDOW_MS = 1000;

/** The latest round-trip times, in milliseconds. */
export class RoundTrips {
  times = [];

  add(milliseconds) {
    this.times.push(milliseconds);
    if (this.times.length > KEPT_ROUND_TRIPS) this.times.shift();
  }

  get last() {
    return this.times.at(-1) ?? NaN;
  }

  /** The p-quantile by the nearest-rank method; NaN if there are no times. */
  quantile(p) {
    if (this.times.length === 0) return NaN;
    const sorted = Float64Array.from(this.times).sort();
    return sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)];
  }
}

/** Events per second, over the last second. */
export class Rate {
  events = [];

  add(count) {
    this.events.push([performance.now(), count]);
  }

  perSecond() {
    const start = performance.now() - RATE_WINDOW_MS;
    while (this.events.length > 0 && this.events[0][0] <= start) this.events.shift();
    return this.events.reduce((sum, [, count]) => sum + count, 0) * (1000 / RATE_WINDOW_MS);
  }
}

/** Limits how often something is done. */
export class Interval {
  #last = -Infinity;

  constructor(milliseconds) {
    this.milliseconds = milliseconds;
  }

  /** Whether the interval has passed; if so, the next one starts. */
  take() {
    const now = performance.now();
    if (now - this.#last < this.milliseconds) return false;
    this.#last = now;
    return true;
  }
}

/** Resolves when the next step is due; catches up on at most 100 ms of late steps. */
export class Pacer {
  #due = performance.now();

  async next(stepsPerSecond) {
    const now = performance.now();
    if (!Number.isFinite(stepsPerSecond)) {
      this.#due = now;
      return pause(0);
    }
    this.#due = Math.max(this.#due + 1000 / stepsPerSecond, now - 100);
    return pause(this.#due - now);
  }
}

/** Resolves after a time-out, even of 0 ms, so that the page stays responsive. */
export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, milliseconds)));
}
