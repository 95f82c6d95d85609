/** The page of a policy card: gets the card from its own URL, and actions for the heat map. */

import { drawHeatMap } from "./charts.js";
import { RefusedError, ServiceClient } from "./client.js";
import { find } from "./dom.js";
import { linkCard, showServed } from "./header.js";
import { showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";
import { ANGLE_LIMIT } from "./physics.js";
import { pageColors, prepare } from "./stage.js";

const HEAT_CELLS = 41;
/** Every fifth of the cells is a column or a row of the table. */
const TABLE_STRIDE = 5;
/** What the states of versions are called, where not by their name in JSON. */
const STATES = { waiting: "not selected" };

const name = decodeURIComponent(location.pathname.split("/").at(-1));
const here = `models/${encodeURIComponent(name)}`;
const client = new ServiceClient();

/** A number with five significant digits. */
function short(number) {
  return typeof number === "number" ? String(Number(number.toPrecision(5))) : "–";
}

/** A table row; its first cell is the header. */
function tableRow([header, ...cells]) {
  const row = document.createElement("tr");
  const first = document.createElement("th");
  first.scope = "row";
  first.textContent = header;
  row.append(first);
  for (const cell of cells) row.insertCell().textContent = cell;
  return row;
}

function solved({ solved, reward_threshold }) {
  if (!solved) return "no";
  return typeof reward_threshold === "number"
    ? `yes, at ${short(reward_threshold)}`
    : "no reward threshold to reach";
}

/** How the policy was trained, if not by another program. */
function training({ training }) {
  if (!training) return { Training: "elsewhere" };
  return {
    Training: `preset ${training.preset}, seed ${training.seed}`,
    "Environment steps": `${training.env_steps} in ${training.episodes} episodes`,
    "Training time, s": short(training.seconds),
  };
}

function showOrigin(version, policy) {
  find("title").textContent = document.title = `Policy card: ${name} version ${version}`;
  const facts = {
    Environment: policy.environment,
    Solved: solved(policy),
    Observations: policy.observations.names.join(", "),
    Actions: policy.actions.names.join(", "),
    ...training(policy),
    Created: policy.created,
    Commit: policy.git_commit ?? "unknown",
    Libraries: Object.entries(policy.versions).map((pair) => pair.join(" ")).join(", "),
  };
  find("origin").replaceChildren(
    ...Object.entries(facts).flatMap(([term, text]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [term, text];
      return [dt, dd];
    }),
  );
}

function showEvaluations({ evaluation, robustness = {} }) {
  const all = Object.entries({ ...evaluation, ...robustness });
  find("evaluations").replaceChildren(
    ...all.map(([kind, result]) =>
      tableRow([
        kind.replaceAll("_", " "),
        result.episodes,
        short(result.mean),
        result.confidence_interval.map(short).join(" to "),
        short(result.standard_deviation),
        short(result.minimum),
      ]),
    ),
  );
}

function showRanges({ names, seen_low, seen_high, low, high }) {
  find("ranges").replaceChildren(
    ...names.map((observation, i) =>
      tableRow([
        observation.replaceAll("_", " "),
        short(seen_low[i]),
        short(seen_high[i]),
        low[i] === null || high[i] === null ? "unbounded" : `${short(low[i])} to ${short(high[i])}`,
      ]),
    ),
  );
}

function showVersions(versions) {
  find("versions").replaceChildren(
    ...versions.map(({ version, state, reason, digest }) =>
      tableRow([version, STATES[state] ?? state, reason.replace(/^not selected: /, ""), digest]),
    ),
  );
}

/** Numbers from -limit to +limit, both included. */
function across(limit) {
  return Array.from({ length: HEAT_CELLS }, (_, i) => limit * ((2 * i) / (HEAT_CELLS - 1) - 1));
}

/** The columns of the pole's angle and its angular velocity; null if there are none. */
function heatColumns({ names }) {
  const columns = ["pole_angle", "pole_angular_velocity"].map((name) => names.indexOf(name));
  return columns.includes(-1) ? null : columns;
}

async function showHeatMap(version, [angle, velocity], { names, seen_low, seen_high }) {
  const velocityLimit = Math.max(-seen_low[velocity], seen_high[velocity]);
  const [angles, velocities] = [across(ANGLE_LIMIT), across(velocityLimit)];
  const rows = velocities.flatMap((speed) =>
    angles.map((lean) =>
      names.map((_, i) => (i === angle ? lean : i === velocity ? speed : 0)),
    ),
  );
  const decision = await untilAnswered(client, () => client.act(rows, true, { path: `${here}/act` }));
  if (decision.model.version !== version) location.reload(); // swapped since the card was sent
  const right = decision.action_probabilities.map((probabilities) => probabilities[1]);
  const map = velocities.map((_, i) => right.slice(i * HEAT_CELLS, (i + 1) * HEAT_CELLS));
  if (!right.every(Number.isFinite)) {
    throw new RefusedError("a probability of the action right is not a number");
  }
  find("heat-section").classList.remove("pending");
  const ends = { angle: ANGLE_LIMIT, velocity: velocityLimit };
  for (const [axis, limit] of Object.entries(ends)) {
    find(`${axis}-low`).textContent = (-limit).toFixed(2);
    find(`${axis}-high`).textContent = limit.toFixed(2);
  }
  const draw = () => drawHeatMap(prepare(find("heat")), map, pageColors());
  new ResizeObserver(draw).observe(find("heat"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  showHeatTable(map, angles, velocities);
}

function showHeatTable(map, angles, velocities) {
  const some = (_, i) => i % TABLE_STRIDE === 0;
  const head = tableRow(["rad/s \\ rad", ...angles.filter(some).map((a) => a.toFixed(2))]);
  find("heat-angles").replaceChildren(head);
  const rows = map.map((row, i) =>
    tableRow([velocities[i].toFixed(2), ...row.filter(some).map((p) => Math.round(100 * p))]),
  );
  find("heat-rows").replaceChildren(...rows.filter(some).reverse());
}

/** The pictures of this version by the place for each: the card lists all files of the artefact. */
function pictures({ checksums }) {
  const places = { "learning_curve.png": "learning-curve", "episode.gif": "episode" };
  return Object.entries(places).filter(([file]) => `assets.extra/${file}` in checksums);
}

async function showPictures(all) {
  for (const [file, id] of all) {
    const url = await untilAnswered(client, () => client.picture(`${here}/${file}`));
    find(id).querySelector("img").src = url;
  }
}

/** Make room for what comes with later answers, so that they move nothing. */
function reserve(heat, all) {
  find("heat-section").hidden = heat === null;
  find("pictures").hidden = all.length === 0;
  for (const [, id] of all) find(id).hidden = false;
  find("episode").open = !matchMedia("(prefers-reduced-motion: reduce)").matches;
}

async function show() {
  const { version, versions, policy } = await untilAnswered(client, () => client.json(here));
  linkCard(name);
  find("card").hidden = false;
  showVersions(versions);
  if (policy === null) {
    showProblem(`No version of ${name} is served.`);
    return;
  }
  showServed(name, version);
  showOrigin(version, policy);
  showEvaluations(policy);
  showRanges(policy.observations);
  find("json").textContent = JSON.stringify(policy, null, 2);
  const [heat, all] = [heatColumns(policy.observations), pictures(policy)];
  reserve(heat, all);
  await showPictures(all);
  if (heat !== null) await showHeatMap(version, heat, policy.observations);
}

showUncaughtErrors();
try {
  await show();
} catch (error) {
  showProblem(`Cannot show ${name}: ${error.message}`);
}
