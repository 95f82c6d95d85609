/** The numbers beside the stage. */

import { drawHistory, roundScale } from "./charts.js";
import { find } from "./dom.js";
import { fixed, numberOf } from "./numbers.js";
import { observe, STEPS_PER_SECOND } from "./physics.js";
import { Rate, RoundTrips } from "./timing.js";

const DECISIONS_KEPT = 5 * STEPS_PER_SECOND;
const RETURNS_KEPT = 100;
/** How long the rate must stay low to count as late: after a start, it rises for a second. */
const LATE_MS = 2000;
const STATE_IDS = ["cart-position", "cart-velocity", "pole-angle", "pole-angular-velocity"];
const STATE_UNITS = ["m", "m/s", "rad", "rad/s"];

function show(id, text) {
  find(id).textContent = text;
}

/** The outputs for one row of an answer. */
export function outputs(decision, row) {
  const pair = (rows) => [0, 1].map((action) => numberOf(rows?.[row]?.[action]));
  return {
    probabilities: pair(decision.action_probabilities),
    logits: pair(decision.action_logits),
    value: numberOf(decision.state_values?.[row]),
  };
}

/** The mean of returns, and their number. */
export function meanOf(returns) {
  const { length } = returns;
  if (length === 0) return "–";
  return `${fixed(returns.reduce((sum, one) => sum + one, 0) / length, 1)} of ${length}`;
}

/** The measurements made while the carts run. */
export class Readouts {
  /** Of the last seconds: {right, value, pushed}. */
  history = [];
  /** The extremes of all values so far: a scale for only the latest ones would keep changing. */
  range = { low: 0, high: 0 };
  /** Of the policy's latest episodes. */
  returns = [];
  best = { policy: null, user: null };
  byUser = { steps: 0, same: 0 };
  decisions = new Rate();
  steps = new Rate();
  roundTrips = new RoundTrips();
  decision = null;
  #pushed = false;
  #inTime = performance.now();

  /** Record a response for `count` carts; `row` is the watched cart's, -1 if it rests. */
  recordResponse(decision, row, milliseconds, count) {
    this.decisions.add(count);
    this.roundTrips.add(milliseconds);
    if (row >= 0) this.decision = outputs(decision, row);
  }

  /** Record that the carts were pushed, before their next step. */
  pushed() {
    this.#pushed = true;
  }

  /** Record the last decision, on which the watched cart moves now. */
  moved() {
    const { value, probabilities } = this.decision;
    this.history.push({ right: probabilities[1], value, pushed: this.#pushed });
    this.#pushed = false;
    if (this.history.length > DECISIONS_KEPT) this.history.shift();
    if (!Number.isFinite(value)) return;
    this.range.low = Math.min(this.range.low, value);
    this.range.high = Math.max(this.range.high, value);
  }

  /** Compare an action of the user with the policy's most probable one. */
  steered(action) {
    const [left, right] = this.decision.probabilities;
    this.byUser.steps += 1;
    if (action === Number(right > left)) this.byUser.same += 1;
  }

  /** Record a finished episode. */
  ended({ driver, steps }) {
    if (driver in this.best) this.best[driver] = Math.max(this.best[driver] ?? 0, steps);
    if (driver !== "policy") return;
    this.returns.push(steps);
    if (this.returns.length > RETURNS_KEPT) this.returns.shift();
  }

  /** Show the numbers; `wanted` is the target of steps per second, 0 while paused. */
  write(carts, wanted) {
    const { watched } = carts;
    if (this.decision !== null) this.#writeDecision(this.decision);
    show("steps", watched.steps);
    show("best", this.best.policy ?? "–");
    show("best-by-user", this.best.user ?? "–");
    const { steps, same } = this.byUser;
    show("agreement", steps ? `${Math.round((100 * same) / steps)} % of ${steps}` : "–");
    show("mean", meanOf(this.returns));
    observe(watched.state).forEach((number, i) => {
      show(STATE_IDS[i], fixed(number, 4, STATE_UNITS[i]));
    });
    show("balancing", `${carts.playing().length} of ${carts.all.length}`);
    show("rate", Math.round(this.decisions.perSecond()));
    this.#writePace(wanted);
  }

  draw(colors) {
    const marks = [...this.history.keys()].filter((i) => this.history[i].pushed);
    const shared = { kept: DECISIONS_KEPT, marks };
    const sure = { top: 1, bottom: 0, base: 0.5, sides: [colors.right, colors.left] };
    drawHistory(
      find("right-history"),
      this.history.map(({ right }) => right),
      { ...shared, ...sure, labels: ["100 % right", "100 % left"] },
      colors,
    );
    const { top, bottom } = roundScale(this.range);
    drawHistory(
      find("value-history"),
      this.history.map(({ value }) => value),
      { ...shared, top, bottom, base: 0, sides: [colors.value, colors.value], labels: [top, bottom] },
      colors,
    );
  }

  #writeDecision({ probabilities, logits, value }) {
    ["left", "right"].forEach((side, action) => {
      show(`probability-${side}`, fixed(100 * probabilities[action], 1, "%"));
      find(`bar-${side}`).style.setProperty("--share", probabilities[action] || 0);
      show(`logit-${side}`, fixed(logits[action], 3));
    });
    show("value", fixed(value, 2));
    show("round-trip", fixed(this.roundTrips.last, 1, "ms"));
    show("p50", fixed(this.roundTrips.quantile(0.5), 1, "ms"));
    show("p99", fixed(this.roundTrips.quantile(0.99), 1, "ms"));
  }

  #writePace(wanted) {
    const steps = Math.round(this.steps.perSecond());
    if (!Number.isFinite(wanted) || steps >= 0.9 * wanted) this.#inTime = performance.now();
    show(
      "pace",
      performance.now() - this.#inTime > LATE_MS
        ? `Slow responses delay the carts: ${steps} of ${wanted} steps per second.`
        : "The carts wait for each response; at most one request is in flight.",
    );
  }
}
