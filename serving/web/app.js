/** The live page: the service selects the carts' actions, one request in flight at a time. */

import { Carts, driveByUser, move, observations } from "./carts.js";
import { UnavailableError, RefusedError, ServiceClient } from "./client.js";
import { connect, held, settings, showPaused } from "./controls.js";
import { find, setText } from "./dom.js";
import { linkCard, showServed } from "./header.js";
import { announce, showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";
import { STEPS_PER_SECOND } from "./physics.js";
import { Readouts } from "./readouts.js";
import { drawCarts, pageColors } from "./stage.js";
import { Pacer } from "./timing.js";

const WRITE_EVERY_MS = 100;
const DESCRIBE_EVERY_MS = 2000;
const WARNING_STAYS_MS = 2000;
const DRIVERS = {
  policy: "Driven by the policy",
  user: "Driven by you",
  both: "Driven by you and by the policy, so that it counts for neither",
  nobody: "You did not steer",
};

const darkness = matchMedia("(prefers-color-scheme: dark)");

const client = new ServiceClient();
const readouts = new Readouts();
const pacer = new Pacer();

let carts = new Carts(settings.count, () => settings.spread);
let model = null;
// With reduced motion, nothing moves until the user starts it.
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
let stepsWanted = 0;
let wakeLoop = () => {};
let colors = pageColors();
let drawing = false;
let warnedAt = -Infinity;

/** Draw the current state in the browser's next frame. */
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawCarts(find("stage"), carts.all, colors);
    readouts.draw(carts.watched, colors);
  });
}

function write() {
  readouts.write(carts.watched, paused ? 0 : settings.speed * STEPS_PER_SECOND);
  if (performance.now() - warnedAt > WARNING_STAYS_MS) setText(find("warnings"), "");
}

function describe() {
  const [position, , angle] = carts.watched.state;
  const many = carts.all.length > 1 ? `${carts.all.length} carts. The first: ` : "";
  const degrees = (angle * 180) / Math.PI;
  find("stage").setAttribute(
    "aria-label",
    `${many}Cart at ${position.toFixed(2)} m, pole leaning ${degrees.toFixed(1)} degrees, ` +
      `step ${carts.watched.steps}`,
  );
}

function setPaused(value) {
  paused = value;
  showPaused(paused);
  announce(paused ? "Paused." : "Running.");
  wakeLoop();
}

function reset() {
  carts = new Carts(settings.count, () => settings.spread);
  readouts.trail.clear();
  write();
  redraw();
}

connect({
  pause: () => setPaused(!paused),
  step: () => {
    if (!paused) setPaused(true);
    stepsWanted += 1;
    wakeLoop();
  },
  reset,
  changed: write,
  strike: (blow) => {
    carts.strike(blow);
    write();
    redraw();
  },
  cart: () => carts.watched,
});

/** Resolves as soon as the carts may move. */
async function untilRunning() {
  while (document.hidden || (paused && stepsWanted === 0)) {
    await new Promise((resolve) => (wakeLoop = resolve));
  }
}

/** Get the actions of all running carts with one request, and step each cart. */
async function frame(single) {
  carts.wake(single);
  readouts.steps.add(1);
  const current = carts;
  const playing = carts.playing();
  if (playing.length === 0) return;
  let milliseconds = NaN;
  const response = await untilAnswered(client, async () => {
    const started = performance.now();
    const answer = await client.act(observations(playing), settings.greedy);
    milliseconds = performance.now() - started;
    return answer;
  });
  // Meanwhile the carts may have been replaced, or paused.
  if (carts !== current || (paused && !single)) return;
  readouts.recordResponse(response, playing.indexOf(carts.watched), milliseconds, playing.length);
  showModel(response.model);
  showWarnings(response.warnings);
  playing.forEach((cart, row) => moveCart(cart, response.actions[row]));
}

function moveCart(cart, policyAction) {
  let action = policyAction;
  if (settings.byUser && cart === carts.watched) {
    action = driveByUser(cart, held.direction);
    if (held.direction !== 0) readouts.steered(action);
  }
  if (action !== 0 && action !== 1) {
    throw new RefusedError(`The response has the action ${action}, which is neither 0 nor 1.`);
  }
  if (cart === carts.watched) readouts.trail.add(cart, action);
  if (!move(cart, action)) return;
  readouts.ended(cart);
  if (cart === carts.watched) {
    const end = cart.fell ? "it fell" : "the time limit";
    setText(find("last-episode"), `${DRIVERS[cart.driver]}: ${cart.steps} steps, then ${end}.`);
  }
}

function showModel({ name, version }) {
  if (model !== null && model.name === name && model.version === version) return;
  if (model !== null) announce(`Now served: ${name} version ${version}.`);
  model = { name, version };
  showServed(name, version);
}

function showWarnings(warnings) {
  if (!warnings?.length) return;
  if (find("warnings").hidden) announce("The service warns: outside the ranges that training saw.");
  warnedAt = performance.now();
  const more = warnings.length > 1 ? ` (and ${warnings.length - 1} more)` : "";
  setText(find("warnings"), `The service warns: ${warnings[0]}${more}`);
  find("warnings").title = warnings.join("\n");
}

/** Whether the served policy is for CartPole, which is all that this page can draw. */
async function servesCartPole() {
  const { environment } = await untilAnswered(client, async () => {
    const { models } = await client.json("models");
    const [{ name }] = models; // the default one
    linkCard(name);
    const { policy } = await client.json(`models/${encodeURIComponent(name)}`);
    if (policy === null) throw new UnavailableError(`no version of ${name} is loaded yet`);
    return policy;
  });
  if (environment.startsWith("CartPole-")) return true;
  showProblem(`This page draws CartPole, but the served policy is for ${environment}.`);
  return false;
}

async function run() {
  for (;;) {
    await untilRunning();
    const single = stepsWanted > 0;
    if (single) stepsWanted -= 1;
    else await pacer.next(settings.speed * STEPS_PER_SECOND);
    if (paused && !single) continue;
    try {
      await frame(single);
      showProblem("");
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      setPaused(true);
      showProblem(`The request failed: ${error.message}`);
    }
    redraw();
  }
}

showUncaughtErrors();
showPaused(paused);
if (paused) announce("Paused, because your system prefers reduced motion. Play starts it.");
darkness.addEventListener("change", () => {
  colors = pageColors();
  redraw();
});
document.addEventListener("visibilitychange", () => wakeLoop());
new ResizeObserver(redraw).observe(find("stage"));
write();
describe();
setInterval(write, WRITE_EVERY_MS);
setInterval(describe, DESCRIBE_EVERY_MS);
if (await servesCartPole()) await run();
