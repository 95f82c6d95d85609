/** The live page: carts, decided by the service, one request at a time. */

import { Carts, move, observations } from "./carts.js";
import { AwayError, RefusedError, ServiceClient } from "./client.js";
import { connect, held, settings, showPaused } from "./controls.js";
import { find, tell } from "./dom.js";
import { announce, showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";
import { STEPS_PER_SECOND } from "./physics.js";
import { Readouts } from "./readouts.js";
import { drawCarts, pageColors } from "./stage.js";
import { Pacer } from "./timing.js";

const WRITE_EVERY_MS = 100;
const DESCRIBE_EVERY_MS = 2000;
const WARNING_STAYS_MS = 2000;

const darkness = matchMedia("(prefers-color-scheme: dark)");

const client = new ServiceClient();
const readouts = new Readouts();
const pacer = new Pacer();

let carts = new Carts(settings.count, () => settings.spread);
let model = null;
// Who asks their system for less motion starts it themselves.
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
let stepsWanted = 0;
let wakeLoop = () => {};
let colors = pageColors();
let drawing = false;
let warnedAt = -Infinity;

/** Show the current state at the browser's next frame. */
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawCarts(find("stage"), carts.all, colors);
    readouts.draw(colors);
  });
}

function write() {
  readouts.write(carts.watched, paused ? 0 : settings.speed * STEPS_PER_SECOND);
  if (performance.now() - warnedAt > WARNING_STAYS_MS) tell(find("warnings"), "");
}

function describe() {
  const [position, , angle] = carts.watched.state;
  const many = carts.all.length > 1 ? `${carts.all.length} carts. The framed one: ` : "";
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

/** Resolves while the carts may move. */
async function untilRunning() {
  while (document.hidden || (paused && stepsWanted === 0)) {
    await new Promise((resolve) => (wakeLoop = resolve));
  }
}

/** One decision about every cart that plays, and one step of each. */
async function frame(single) {
  carts.wake(single);
  readouts.steps.add(1);
  const current = carts;
  const playing = carts.playing();
  if (playing.length === 0) return;
  let milliseconds = NaN;
  const decision = await untilAnswered(client, async () => {
    const asked = performance.now();
    const answer = await client.act(observations(playing), settings.greedy);
    milliseconds = performance.now() - asked;
    return answer;
  });
  // The carts that this was about may be gone, or held still.
  if (carts !== current || (paused && !single)) return;
  readouts.decided(decision, playing.indexOf(carts.watched), milliseconds, playing.length);
  showModel(decision.model);
  showWarnings(decision.warnings);
  playing.forEach((cart, row) => moveAsDecided(cart, decision.actions[row]));
}

function moveAsDecided(cart, decided) {
  let action = decided;
  if (settings.byHand && cart === carts.watched) {
    cart.byHand = true;
    // CartPole is always pushed: without a direction held, by turns.
    action = held.direction === 0 ? cart.steps % 2 : Number(held.direction > 0);
    readouts.droveByHand(action);
  }
  if (action !== 0 && action !== 1) {
    throw new RefusedError(`The answer's action is ${action}: neither 0 nor 1.`);
  }
  if (!move(cart, action)) return;
  readouts.ended(cart);
  if (cart === carts.watched) {
    const who = cart.byHand ? "Driven by you" : "Driven by the policy";
    const end = cart.fell ? "it fell" : "the time limit";
    tell(find("last-episode"), `${who}: ${cart.steps} steps, then ${end}.`);
  }
}

function showModel({ name, version }) {
  if (model !== null && model.name === name && model.version === version) return;
  if (model !== null) announce(`${name} version ${version} decides now.`);
  model = { name, version };
  const link = find("model");
  link.href = `models/${encodeURIComponent(name)}`;
  tell(link, `${name} version ${version}`);
}

function showWarnings(warnings) {
  if (!warnings?.length) return;
  if (find("warnings").hidden) announce("The service warns: outside what training saw.");
  warnedAt = performance.now();
  const more = warnings.length > 1 ? ` (and ${warnings.length - 1} more)` : "";
  tell(find("warnings"), `The service warns: ${warnings[0]}${more}`);
}

/** Whether the served policy drives what this page can draw. */
async function servesCartPole() {
  const { environment } = await untilAnswered(client, async () => {
    const { models } = await client.json("models");
    const [{ name }] = models; // the default one
    const { policy } = await client.json(`models/${encodeURIComponent(name)}`);
    if (policy === null) throw new AwayError(`no version of ${name} is loaded yet`);
    return policy;
  });
  if (environment.startsWith("CartPole-")) return true;
  showProblem(`This page draws CartPole; the service has a policy for ${environment}.`);
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
      showProblem(`The service cannot go on: ${error.message}`);
    }
    redraw();
  }
}

showUncaughtErrors();
showPaused(paused);
if (paused) announce("Paused, as your system asks for less motion. Play starts it.");
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
