/** The carts, what is decided for them, and what is recorded of it. */

import { SideBySide } from "./beside.js";
import { Carts, driveByUser, move, observations } from "./carts.js";
import { RefusedError } from "./client.js";
import { held } from "./controls.js";
import { untilAnswered } from "./notices.js";
import { PolicyMap, Trail } from "./plane.js";
import { Readouts } from "./readouts.js";
import { Recovery } from "./recovery.js";
import { requestSeed } from "./seeds.js";
import { settings } from "./settings.js";
import { showEpisode, showModel, showWarnings } from "./status.js";
import { PinnedVersion } from "./versions.js";

export class Simulation {
  readouts = new Readouts();
  map = new PolicyMap();
  trail = new Trail();
  recovery = new Recovery();
  sideBySide = new SideBySide();
  /** The model and version that answered last for the watched cart. */
  model = null;
  #isDragged = false;
  #hasMap = true; // unless the service refuses the request for it

  /** The arguments are those of `Carts`. */
  constructor(client, versions, count, nextStart) {
    this.client = client;
    this.nextStart = nextStart;
    this.carts = new Carts(versions, count, nextStart);
  }

  reset(versions, count) {
    this.carts = new Carts(versions, count, this.nextStart);
    this.sideBySide = new SideBySide();
    this.#isDragged = false;
    this.trail.clear();
    this.recovery.clear();
  }

  strike(blow) {
    this.carts.strike(blow);
    this.readouts.pushed();
    this.recovery.start();
  }

  /** Hold the carts where the user drags one. */
  drag(place) {
    this.#isDragged = true;
    this.carts.drag(place);
    this.trail.clear();
    this.recovery.clear();
  }

  drop() {
    this.#isDragged = false;
  }

  /** Ask about the carts where they are, and show what the policy makes of them. */
  async look() {
    const playing = this.carts.playing();
    if (playing.length > 0) this.#show(await this.#decide(playing));
  }

  /** Get the actions of all running carts, and step each cart, unless `isOff()` by then. */
  async step({ atOnce, isOff }) {
    const { carts } = this;
    carts.wake(atOnce);
    this.readouts.steps.add(1);
    const playing = carts.playing();
    if (playing.length === 0) return;
    const answers = await this.#decide(playing);
    if (carts !== this.carts || isOff()) return;
    this.#show(answers);
    if (this.#isDragged) return;
    const [first, second] = answers;
    if (first && second) this.sideBySide.recordState();
    for (const cart of playing) {
      const { response, asked } = answers[carts.versions.indexOf(cart.version)];
      this.#move(cart, response.actions[asked.indexOf(cart)]);
    }
    if (carts.versions.length > 1 && carts.playing().length === 0) this.sideBySide.ended(carts.all);
  }

  /** Bring the map of the policy up to date with the watched cart. */
  async refreshMap() {
    const { watched } = this.carts;
    if (this.model === null || watched.ended || !this.#hasMap) return;
    // Sent to the version by its number: such requests are not compared with a shadow.
    const { name, version } = this.model;
    const asked = new PinnedVersion(this.client, name, { version, state: "served" });
    try {
      await untilAnswered(this.client, () => this.map.refresh(asked, watched));
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      // 404: the version was replaced, and the next answer names the new one. Any other refusal:
      // the service accepts fewer rows per request, so the map is left out.
      this.#hasMap = error.status === 404;
    }
  }

  /** Ask each version about its carts, one after the other: an answer, or null, per version. */
  async #decide(playing) {
    const { versions, watched } = this.carts;
    const answers = [];
    for (const version of versions) {
      const own = playing.filter((cart) => cart.version === version);
      // The second version is also asked about the first one's cart, to compare them there.
      const asked = version === versions[0] ? own : [...own, watched];
      answers.push(own.length === 0 ? null : await this.#ask(version, asked));
    }
    return answers;
  }

  async #ask(version, asked) {
    const [{ seed, steps }] = asked;
    const isAlone = this.carts.starts.length === 1;
    const decisionSeed = isAlone && !settings.greedy ? requestSeed(seed, steps) : undefined;
    let milliseconds = NaN;
    const response = await untilAnswered(this.client, async () => {
      const started = performance.now();
      const decision = await version.act(observations(asked), settings.greedy, decisionSeed);
      milliseconds = performance.now() - started;
      return decision;
    });
    return { response, asked, milliseconds };
  }

  #show([first, second]) {
    if (first === null) return;
    const { response, asked, milliseconds } = first;
    const row = asked.indexOf(this.carts.watched);
    this.readouts.recordResponse(response, row, milliseconds, asked.length);
    if (second) this.sideBySide.show(response, second.response);
    this.model = response.model;
    showModel(response.model);
    showWarnings(response.warnings);
  }

  #move(cart, policyAction) {
    const isWatched = cart === this.carts.watched;
    let action = policyAction;
    if (settings.byUser && isWatched) {
      action = driveByUser(cart, held.direction);
      if (held.direction !== 0) this.readouts.steered(action);
    }
    if (action !== 0 && action !== 1) {
      throw new RefusedError(`The response has the action ${action}, which is neither 0 nor 1.`);
    }
    if (isWatched) {
      this.trail.add(cart, action);
      this.readouts.moved();
    }
    const hasEnded = move(cart, action);
    if (isWatched) this.recovery.add(cart);
    if (hasEnded && cart.version === this.carts.versions[0]) this.readouts.ended(cart);
    if (hasEnded && isWatched) showEpisode(cart);
  }
}
