/** Two versions side by side: which can be chosen, and how they compare. */

import { find, setText } from "./dom.js";
import { fixed } from "./numbers.js";
import { meanOf, outputs } from "./readouts.js";
import { loadedVersions, title } from "./versions.js";

/** Offer all loaded versions except the served one; keeps a choice that is still loaded. */
export function offerVersions(report) {
  const others = loadedVersions(report).filter(({ state }) => state !== "served");
  const select = find("beside");
  const { value } = select;
  const options = [
    new Option(others.length ? "none" : "no other version is loaded", ""),
    ...others.map((other) => new Option(title(other), other.version)),
  ];
  const textOf = (all) => all.map(({ text }) => text).join("\n");
  if (textOf(options) === textOf([...select.options])) return;
  select.replaceChildren(...options);
  if (others.some(({ version }) => String(version) === value)) select.value = value;
  select.disabled = others.length === 0;
}

const SIDES = ["first", "second"];

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const prefersRight = ({ probabilities: [left, right] }) => right > left;

/** What two versions did from the same starts. */
export class SideBySide {
  #returns = [[], []];
  #states = { count: 0, same: 0 };
  #latest = [null, null];
  #agree = false;

  /** Show both answers; the last row of the second answer is about the first cart. */
  show(first, second) {
    this.#latest = [outputs(first, 0), outputs(second, 0)];
    const [a, b] = [outputs(first, 0), outputs(second, second.actions.length - 1)];
    this.#agree = prefersRight(a) === prefersRight(b);
  }

  /** Count the state that was shown last. */
  recordState() {
    this.#states.count += 1;
    this.#states.same += Number(this.#agree);
  }

  /** Record that the episodes of both carts have ended. */
  ended(carts) {
    carts.forEach(({ steps }, side) => this.#returns[side].push(steps));
  }

  write(carts) {
    carts.forEach(({ steps, version }, side) => {
      const latest = this.#latest[side];
      const cells = {
        title: version.title,
        steps,
        mean: meanOf(this.#returns[side]),
        longer: this.#longer(side),
        right: latest ? fixed(100 * latest.probabilities[1], 1, "%") : "–",
        value: latest ? fixed(latest.value, 2) : "–",
      };
      for (const [name, text] of Object.entries(cells)) {
        find(`${SIDES[side]}-${name}`).textContent = text;
      }
    });
    const { count, same } = this.#states;
    setText(
      find("same-action"),
      count
        ? `The same most probable action in ${percent(same / count)} of ${count} states of the left cart.`
        : "",
    );
  }

  /** How many pairs of episodes this side balanced longer in. */
  #longer(side) {
    return this.#returns[side].filter((steps, i) => steps > this.#returns[1 - side][i]).length;
  }
}

/** Show how a shadow compares with the served version on the requests of clients. */
export function writeTraffic({ decisions, agreement, absolute_value_difference: difference }) {
  setText(
    find("traffic"),
    decisions
      ? `On ${decisions} decisions for clients, the most probable action was the same in ` +
        `${percent(agreement)}; state values differed by ${fixed(difference, 2)} on average.`
      : "No decision for a client has been compared yet.",
  );
}
