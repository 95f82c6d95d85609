/** A slider and a field for each number of an observation. */

import { find } from "./dom.js";
import { between, short, typical, words } from "./numbers.js";

/** Steps of a slider. */
const STEPS = 200;
/** How many numbers are shown at first; the others are folded. */
const SHOWN = 12;

/** One number: its field takes any value, its slider those that training saw. */
class Slider {
  constructor(index, name, low, high, changed) {
    Object.assign(this, { low, high });
    this.element = document.createElement("div");
    this.element.className = "number";
    const label = document.createElement("label");
    [label.htmlFor, label.textContent] = [`number-${index}`, words(name)];
    this.field = input("number", { id: `number-${index}`, step: "any", required: true });
    this.range = input("range", { min: 0, max: STEPS, step: 1, disabled: low === high });
    this.range.setAttribute("aria-label", `${words(name)}, slider`);
    this.strip = document.createElement("canvas");
    this.strip.setAttribute("aria-hidden", "true"); // the slider conveys the same, step by step
    const ends = document.createElement("p");
    ends.className = "ends";
    const texts = low === high ? [`always ${short(low)} in training`] : [short(low), short(high)];
    ends.replaceChildren(
      ...texts.map((text) => Object.assign(document.createElement("span"), { textContent: text })),
    );
    this.element.append(label, this.field, this.range, this.strip, ends);
    this.range.addEventListener("input", () => {
      this.show(between(low, high, this.range.value / STEPS));
      changed(this);
    });
    this.field.addEventListener("input", () => {
      if (!Number.isFinite(this.field.valueAsNumber)) return; // the user is still typing
      this.#follow(this.field.valueAsNumber);
      changed(this);
    });
  }

  /** Show a value that the user did not type. */
  show(value) {
    this.field.value = value === this.low || value === this.high ? short(value) : value;
    this.#follow(value);
  }

  #follow(value) {
    this.value = value;
    const share = this.low === this.high ? 0 : (value - this.low) / (this.high - this.low);
    this.range.value = Math.round(STEPS * share);
    this.range.setAttribute("aria-valuetext", short(value));
    this.element.classList.toggle("outside", value < this.low || value > this.high);
  }
}

function input(type, properties) {
  const element = document.createElement("input");
  element.type = type;
  return Object.assign(element, properties);
}

/** The sliders of an observation, in its order; `changed` gets the one that the user moved. */
export class Sliders {
  constructor(observations, changed) {
    this.observations = observations;
    const { names, seen_low, seen_high } = observations;
    this.all = names.map(
      (name, i) => new Slider(i, name, seen_low[i], seen_high[i], changed),
    );
    const elements = this.all.map(({ element }) => element);
    find("first-numbers").replaceChildren(...elements.slice(0, SHOWN));
    find("more-numbers").replaceChildren(...elements.slice(SHOWN));
    find("more").hidden = names.length <= SHOWN;
    find("more-summary").textContent =
      `${names.length - SHOWN} more of the ${names.length} numbers`;
    const rows = {
      typical: () => typical(observations),
      random: () => seen_low.map((low, i) => between(low, seen_high[i], Math.random())),
    };
    for (const [id, row] of Object.entries(rows)) {
      find(id).addEventListener("click", () => {
        this.#show(row());
        changed(null);
      });
    }
    this.#show(rows.typical());
  }

  #show(row) {
    this.all.forEach((slider, i) => slider.show(row[i]));
  }

  /** The observation. */
  get row() {
    return this.all.map(({ value }) => value);
  }

  /** Columns with a strip: those shown at once whose value ever changed in training. */
  get swept() {
    const columns = this.all.slice(0, SHOWN).map((_, i) => i);
    return columns.filter((i) => this.all[i].low !== this.all[i].high);
  }
}
