/** The numbers beside the stage. */

import { drawHistory } from "./charts.js";
import { observe, STEPS_PER_SECOND } from "./physics.js";
import { Rate, RoundTrips } from "./timing.js";

const VALUES_KEPT = 5 * STEPS_PER_SECOND;
const RETURNS_KEPT = 100;
const STATE_IDS = ["cart-position", "cart-velocity", "pole-angle", "pole-angular-velocity"];
const STATE_UNITS = ["m", "m/s", "rad", "rad/s"];

const find = (id) => document.getElementById(id);

function show(id, text) {
  find(id).textContent = text;
}

/** A number as a person reads it; what is none is named, never hidden. */
function fixed(number, digits, unit = "") {
  if (!Number.isFinite(number)) return "not a number";
  return `${number.toFixed(digits)}${unit && ` ${unit}`}`;
}

/** Everything that is measured while the carts run. */
export class Readouts {
  values = [];
  returns = [];
  best = { policy: null, hand: null };
  episodes = 0;
  byHand = { steps: 0, agreed: 0 };
  rate = new Rate();
  roundTrips = new RoundTrips();
  decision = null;

  /** Take the watched cart's row of an answer. */
  decided(decision, row, milliseconds, count) {
    this.rate.add(count);
    this.roundTrips.add(milliseconds);
    if (row < 0) return;
    this.decision = {
      probabilities: decision.action_probabilities?.[row] ?? [],
      logits: decision.action_logits?.[row] ?? [],
      value: decision.state_values?.[row],
    };
    this.values.push(this.decision.value ?? NaN);
    if (this.values.length > VALUES_KEPT) this.values.shift();
  }

  /** Compare a step driven by hand with what the policy would most probably do. */
  droveByHand(action) {
    const [left, right] = this.decision.probabilities;
    this.byHand.steps += 1;
    if (action === Number(right > left)) this.byHand.agreed += 1;
  }

  /** Count a finished episode. */
  ended(cart) {
    const driver = cart.byHand ? "hand" : "policy";
    this.best[driver] = Math.max(this.best[driver] ?? 0, cart.steps);
    this.episodes += 1;
    this.returns.push(cart.steps);
    if (this.returns.length > RETURNS_KEPT) this.returns.shift();
  }

  /** Write the numbers; `wanted` is how many decisions a second the page would like. */
  write(watched, wanted, running) {
    if (this.decision !== null) this.#writeDecision(this.decision);
    show("steps", watched.steps);
    show("return", watched.steps);
    show("best", this.best.policy ?? "–");
    show("best-by-hand", this.best.hand ?? "–");
    const { steps, agreed } = this.byHand;
    show("agreement", steps ? `${Math.round((100 * agreed) / steps)} % of ${steps}` : "–");
    const mean = this.returns.reduce((sum, value) => sum + value, 0) / this.returns.length;
    show("episodes", this.episodes ? `${this.episodes}, ${fixed(mean, 1)}` : "–");
    observe(watched.state).forEach((number, i) => {
      show(STATE_IDS[i], fixed(number, 4, STATE_UNITS[i]));
    });
    const rate = this.rate.perSecond();
    show("rate", Math.round(rate));
    this.#writePace(rate, wanted, running);
  }

  draw(colors) {
    drawHistory(find("value-history"), this.values, VALUES_KEPT, colors);
  }

  #writeDecision({ probabilities, logits, value }) {
    ["left", "right"].forEach((side, action) => {
      show(`probability-${side}`, fixed(100 * probabilities[action], 1, "%"));
      find(`bar-${side}`).style.setProperty("--share", probabilities[action] ?? 0);
      show(`logit-${side}`, fixed(logits[action], 3));
    });
    show("value", fixed(value, 2));
    show("round-trip", fixed(this.roundTrips.last, 1, "ms"));
    show("p50", fixed(this.roundTrips.quantile(0.5), 1, "ms"));
    show("p99", fixed(this.roundTrips.quantile(0.99), 1, "ms"));
  }

  #writePace(rate, wanted, running) {
    const late = running && Number.isFinite(wanted) && rate < 0.9 * wanted;
    show(
      "pace",
      late
        ? `Slower than asked: the physics waits for every answer (${Math.round(rate)} of ${wanted}).`
        : "One request is on its way at a time; the physics waits for its answer.",
    );
  }
}
