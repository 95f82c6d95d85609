/** The form of the card page: shows at once what the service answers for its sliders' numbers. */

import { RefusedError, SERVICE } from "./client.js";
import { actionColors } from "./colors.js";
import { find } from "./dom.js";
import { announce, showProblem, untilAnswered } from "./notices.js";
import { fixed, inRows, numberOf, words } from "./numbers.js";
import { Sliders } from "./sliders.js";
import { pageColors } from "./stage.js";
import { drawSweep, sweepCells, sweepRows } from "./sweeps.js";
import { pause } from "./timing.js";

/** How long the sliders must rest before the strips, which take many rows, are requested. */
const REST_MS = 150;

export class Form {
  #wake = () => {};
  #isStale = true; // whether the shown answer is not for the sliders' current numbers
  #spoken = "";
  #digest = null; // of the version that this page is about, once it has answered
  #strips = []; // by swept column, probabilities [cells][actions]

  /**
   * `path` is the model's, relative to the service; `pinned` is its version that the page is about;
   * `moved` gets the row whenever it changes.
   */
  constructor(client, path, pinned, policy, moved) {
    Object.assign(this, { client, path, pinned, moved });
    this.actions = policy.actions.names;
    this.bars = this.actions.map(actionRow);
    find("actions").replaceChildren(...this.bars.map(({ row }) => row));
    this.sliders = new Sliders(policy.observations, (slider) => this.#changed(slider));
    this.cells = sweepCells(policy.observations.names.length, this.sliders.swept.length || 1);
    this.#haveStrips(this.cells === 0 ? [] : this.sliders.swept);
    this.#changed(null);
  }

  /** Ask about the sliders' numbers whenever they change, until the version is replaced. */
  async run() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
    new ResizeObserver(() => this.#paint()).observe(find("numbers"));
    for (;;) {
      while (!this.#isStale) await this.#change();
      try {
        const served = await this.#ask();
        this.#digest ??= served.digest;
        if (served.version !== this.pinned.version || served.digest !== this.#digest) {
          showProblem(replaced(this.pinned.version, served.version));
          return;
        }
        if (!this.#isStale) await Promise.race([pause(REST_MS), this.#change()]);
        if (!this.#isStale) await this.#sweep();
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
        if (error.status === 404) this.#isStale = true; // replaced: ask again
        find("form-status").textContent = `The service refuses these numbers: ${error.message}`;
      }
    }
  }

  /** Have a strip for each of these columns, and for no other one. */
  #haveStrips(columns) {
    this.swept = columns;
    this.#strips = [];
    this.sliders.all.forEach(({ strip }, i) => (strip.hidden = !columns.includes(i)));
    find("strips-hint").hidden = columns.length === 0;
  }

  /** Resolves when a number changes. */
  #change() {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  #changed(slider) {
    this.#isStale = true;
    // A slider's own strip depends on the other numbers only, and these have not changed.
    for (const one of this.sliders.all) one.strip.classList.toggle("stale", one !== slider);
    const row = this.sliders.row;
    find("curl").textContent = curl(new URL(`${this.path}/act`, SERVICE), row, this.client.key);
    this.moved(row);
    this.#wake();
  }

  /** Show what the policy answers for the sliders' numbers; returns the model that did. */
  async #ask() {
    const answer = await untilAnswered(this.client, () => {
      this.#isStale = false; // a retry sends the numbers current by then
      return this.client.act([this.sliders.row], true, { path: `${this.path}/act` });
    });
    const [chosen] = answer.actions;
    this.bars.forEach(({ row, bar, percent, logit }, i) => {
      const probability = numberOf(answer.action_probabilities[0][i]);
      row.classList.toggle("chosen", i === chosen);
      bar.style.setProperty("--share", probability || 0);
      percent.textContent = fixed(100 * probability, 1, "%");
      logit.textContent = fixed(numberOf(answer.action_logits[0][i]), 2);
    });
    const value = fixed(numberOf(answer.state_values[0]), 2);
    find("value").textContent = value;
    const [warning = ""] = answer.warnings;
    find("form-status").textContent = warning.replace("observations[0]: ", "");
    this.#spoken = `Most probable: ${words(this.actions[chosen])}. State value: ${value}.`;
    return answer.model;
  }

  async #sweep() {
    announce(this.#spoken);
    if (this.swept.length === 0) return;
    const { row, observations } = this.sliders;
    const rows = sweepRows(row, this.swept, observations, this.cells);
    let answer;
    try {
      answer = await untilAnswered(this.client, () => this.pinned.act(rows, true));
    } catch (error) {
      if (!(error instanceof RefusedError) || error.status === 404) throw error;
      this.#haveStrips([]); // the service accepts fewer rows per request
      return;
    }
    if (answer.model.digest !== this.#digest) this.#isStale = true; // replaced: ask again
    if (this.#isStale) return;
    this.#strips = inRows(answer.action_probabilities, this.cells);
    for (const { strip } of this.sliders.all) strip.classList.remove("stale");
    this.#paint();
  }

  #paint() {
    const colors = actionColors(this.actions.length, pageColors());
    this.bars.forEach(({ bar }, i) => bar.style.setProperty("--color", colors[i]));
    this.#strips.forEach((cells, i) =>
      drawSweep(this.sliders.all[this.swept[i]].strip, cells, colors),
    );
  }
}

/** What to say once another version answers, perhaps under the same number. */
function replaced(shown, served) {
  return served === shown
    ? `Version ${shown} has been replaced by another of the same number. ` +
        "Reload this page to see it."
    : `Version ${served} is now served, and this page is about version ${shown}. ` +
        "Reload it to see that one.";
}

/** A row of the table of actions, and its parts that change. */
function actionRow(name) {
  const row = document.createElement("tr");
  const header = document.createElement("th");
  header.scope = "row";
  const mark = Object.assign(document.createElement("span"), { className: "mark" });
  const spoken = Object.assign(document.createElement("span"), {
    className: "unseen",
    textContent: " taken: ",
  });
  mark.append("✓", spoken);
  header.append(mark, words(name));
  const bar = Object.assign(document.createElement("span"), { className: "bar" });
  row.append(header);
  row.insertCell().append(bar);
  const [percent, logit] = [row.insertCell(), row.insertCell()];
  percent.textContent = logit.textContent = "–";
  return { row, bar, percent, logit };
}

function curl(url, row, sentKey) {
  const key = sentKey ? " -H 'Authorization: Bearer YOUR_KEY'" : "";
  const body = JSON.stringify({ observations: [row], deterministic: true });
  return `curl -s ${url}${key} -H 'Content-Type: application/json' -d '${body}'`;
}
