/** The live page: the service selects the carts' actions, one request in flight at a time. */

import { offerVersions, writeTraffic } from "./beside.js";
import { modelPath, RefusedError, ServiceClient } from "./client.js";
import { connect, showPaused } from "./controls.js";
import { find, setText } from "./dom.js";
import { linkCard } from "./header.js";
import { readLink, showLink, showReplay } from "./link.js";
import { announce, showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";
import { isPlayable, STEPS_PER_SECOND } from "./physics.js";
import { drawPlane } from "./plane.js";
import { newSeed } from "./seeds.js";
import { settings } from "./settings.js";
import { Simulation } from "./simulation.js";
import { drawCarts, pageColors } from "./stage.js";
import { describe, hideOldWarnings } from "./status.js";
import { Interval, Pacer } from "./timing.js";
import { servedModel } from "./unserved.js";
import { loadedVersions, PinnedVersion, ServedVersion, title } from "./versions.js";

const WRITE_EVERY_MS = 100;
const DESCRIBE_EVERY_MS = 2000;

const client = new ServiceClient();
const pacer = new Pacer();
const mapInterval = new Interval(250);
const reportInterval = new Interval(10_000);
const trafficInterval = new Interval(5_000);

let link = { model: null, replay: null };
let first = new ServedVersion(client, null);
let report = null;
// With reduced motion, nothing moves until the user starts it.
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
let stepsWanted = 0;
let lookWanted = true;
let wakeLoop = () => {};
let colors = pageColors();
let drawing = false;

const nextStart = () => link.replay ?? { seed: newSeed(), spread: settings.spread };
const simulation = new Simulation(client, [first], settings.count, nextStart);

/** Draw the current state in the browser's next frame. */
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    const { carts, map, trail, readouts } = simulation;
    drawing = false;
    drawCarts(find("stage"), carts.all, colors);
    drawPlane(find("plane"), map, trail, carts.all, colors);
    readouts.draw(colors);
  });
}

function write() {
  const { carts, model, readouts, recovery, sideBySide } = simulation;
  readouts.write(carts, paused ? 0 : settings.speed * STEPS_PER_SECOND);
  find("last-push").textContent = recovery.text;
  showLink(model, carts, settings.greedy);
  if (carts.versions.length > 1) sideBySide.write(carts.all);
  hideOldWarnings();
}

/** The carts were moved: draw them, and ask the policy about them even while paused. */
function changed() {
  lookWanted = true;
  wakeLoop();
  write();
  redraw();
}

function setPaused(value) {
  paused = value;
  showPaused(paused);
  announce(paused ? "Paused." : "Running.");
  wakeLoop();
}

function reset() {
  const beside = report?.versions.find(({ version }) => version === settings.beside);
  const isPair = beside !== undefined;
  const versions = [first];
  if (isPair) versions.push(new PinnedVersion(client, report.name, beside));
  find("count").disabled = isPair || link.replay !== null;
  find("side-by-side").hidden = !isPair;
  setText(find("traffic"), "");
  setText(find("beside-ended"), "");
  simulation.reset(versions, isPair ? 1 : settings.count);
  changed();
}

const actions = {
  pause: () => setPaused(!paused),
  step: () => {
    if (!paused) setPaused(true);
    stepsWanted += 1;
    wakeLoop();
  },
  reset,
  changed: write,
  strike: (blow) => {
    simulation.strike(blow);
    changed();
  },
  drag: (place) => {
    simulation.drag(place);
    changed();
  },
  drop: () => simulation.drop(),
  carts: () => simulation.carts,
};

/** Get the report on the model of this page, with its policy card. */
function modelAndCard() {
  return untilAnswered(client, async () => {
    const { models } = await client.json("models");
    const name = link.model ?? models[0].name; // the default model
    linkCard(name);
    return servedModel(client, name);
  });
}

/** Ask which versions are loaded; returns whether this ended a comparison with one of them. */
async function askVersions() {
  const { models } = await untilAnswered(client, () => client.json("models"));
  report = models.find(({ name }) => name === report.name) ?? report;
  offerVersions(report);
  const [, second] = simulation.carts.versions;
  if (second === undefined) return false;
  if (second.version === settings.beside) {
    const loaded = loadedVersions(report).find(({ version }) => version === second.version);
    second.title = title(loaded);
    return false;
  }
  reset();
  const became = report.version === second.version ? "is served now" : "is not loaded any more";
  const text = `Version ${second.version} ${became}: the comparison with it has ended.`;
  setText(find("beside-ended"), text);
  announce(text);
  return true;
}

/** Refresh what may have changed meanwhile: the loaded versions, and how a shadow compares. */
async function askReports() {
  if (reportInterval.take()) await askVersions();
  const isShadow = ({ version, state }) => version === settings.beside && state === "shadow";
  if (report.versions.some(isShadow) && trafficInterval.take()) {
    const path = `${modelPath(report.name)}/comparison`;
    try {
      writeTraffic(await untilAnswered(client, () => client.json(path)));
    } catch (error) {
      if (error.status !== 404) throw error;
      setText(find("traffic"), ""); // it is no longer a shadow, or cannot be compared
    }
  }
}

/** One iteration: a step while running, a single step, or an answer about paused carts. */
async function runOnce() {
  const atOnce = stepsWanted > 0;
  if (atOnce) stepsWanted -= 1;
  else if (!paused) {
    await pacer.next(settings.speed * STEPS_PER_SECOND);
    if (paused) return;
  }
  const isLook = paused && !atOnce;
  lookWanted = false;
  if (isLook) await simulation.look();
  else await simulation.step({ atOnce, isOff: () => paused && !atOnce });
  if (mapInterval.take() || paused) await simulation.refreshMap();
  await askReports();
}

async function run() {
  for (;;) {
    while (document.hidden || (paused && stepsWanted === 0 && !lookWanted)) {
      await new Promise((resolve) => (wakeLoop = resolve));
    }
    try {
      await runOnce();
      showProblem("");
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      if (error.status === 404 && (await askVersions())) continue;
      setPaused(true);
      showProblem(`The request failed: ${error.message}`);
    }
    redraw();
  }
}

async function start() {
  link = readLink(location.search);
  first = new ServedVersion(client, link.model);
  reset(); // before anything is awaited: what the user does meanwhile is kept
  report = await modelAndCard();
  if (!isPlayable(report.policy)) {
    location.replace(find("card-link").href);
    return;
  }
  offerVersions(report);
  reportInterval.take();
  if (link.replay !== null) {
    const loaded = showReplay(report, link.replay);
    if (loaded === undefined) return;
    first = new PinnedVersion(client, report.name, loaded);
    reset();
  }
  await run();
}

showUncaughtErrors();
showPaused(paused);
connect(actions);
if (paused) announce("Paused, because your system prefers reduced motion. Play starts it.");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colors = pageColors();
  redraw();
});
document.addEventListener("visibilitychange", () => wakeLoop());
new ResizeObserver(redraw).observe(find("stage"));
write();
describe(simulation.carts);
setInterval(write, WRITE_EVERY_MS);
setInterval(() => describe(simulation.carts), DESCRIBE_EVERY_MS);
try {
  await start();
} catch (error) {
  if (!(error instanceof RefusedError)) throw error;
  showProblem(`Cannot show this page: ${error.message}`);
}
