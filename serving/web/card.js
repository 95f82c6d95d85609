/** The page of a policy card: gets the card from its own URL, and asks the policy. */

import { modelPath, SERVICE, ServiceClient } from "./client.js";
import { anchorTo, fillList, find } from "./dom.js";
import { Form } from "./form.js";
import { linkCard, showServed } from "./header.js";
import { HeatMap, heatColumns } from "./heat.js";
import { showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";
import { short, words } from "./numbers.js";
import { isPlayable } from "./physics.js";
import { NotServedError, whyNothingIsServed } from "./unserved.js";
import { fillTable } from "./tables.js";
import { pause } from "./timing.js";
import { PinnedVersion } from "./versions.js";

/** Display names of the version states that do not keep their name in JSON. */
const STATES = { waiting: "not selected" };

const WORKERS_DIFFER_MS = 500;

const name = decoded(location.pathname.split("/").at(-1));
const here = modelPath(name);
const client = new ServiceClient();

/** A decoded part of a URL; unchanged if it cannot be decoded, as in /models/100%. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Both ends of a range; a dash where the card does not have them. */
function range([low, high]) {
  return typeof low === "number" ? `${short(low)} to ${short(high)}` : "–";
}

function solved({ solved, reward_threshold }) {
  if (!solved) return "no";
  return typeof reward_threshold === "number"
    ? `yes, at ${short(reward_threshold)}`
    : "no reward threshold to reach";
}

/** How the policy was trained, unless another program trained it. */
function training({ training }) {
  if (!training) return { Training: "elsewhere" };
  return {
    Training: `preset ${training.preset}, seed ${training.seed}`,
    "Environment steps": `${training.env_steps} in ${training.episodes} episodes`,
    "Training time, s": short(training.seconds),
  };
}

/** What the policy is, in one line, and where else to see it. */
function showLead({ default: isDefault, policy }) {
  const { environment, observations, actions, evaluation } = policy;
  find("lead").textContent =
    `A policy for ${environment}: from ${observations.names.length} numbers it chooses one of ` +
    `${actions.names.length} actions. Its mean return is ${short(evaluation.greedy.mean)}. `;
  if (!isPlayable(policy)) {
    find("lead").append("Live episodes are for CartPole only, without wrappers and options.");
    return;
  }
  const live = new URL(isDefault ? "" : `?model=${encodeURIComponent(name)}`, SERVICE);
  find("lead").append(anchorTo(live, "Watch it balance"), ".");
}

function showOrigin(policy) {
  const pairs = Object.entries(policy.versions ?? {});
  const libraries = pairs.map((pair) => pair.join(" ")).join(", ");
  fillList(find("origin"), {
    Environment: policy.environment,
    Solved: solved(policy),
    ...training(policy),
    Created: policy.created ?? "unknown",
    Commit: policy.git_commit ?? "unknown",
    Libraries: libraries || "unknown",
  });
}

function showEvaluations({ evaluation, robustness = {} }) {
  fillTable(
    "evaluations",
    Object.entries({ ...evaluation, ...robustness }).map(([kind, result]) => [
      words(kind),
      result.episodes ?? "–",
      short(result.mean),
      range(result.confidence_interval ?? []),
      short(result.standard_deviation),
      short(result.minimum),
    ]),
  );
}

function showRanges({ names, seen_low, seen_high, low = [], high = [] }) {
  fillTable(
    "ranges",
    names.map((observation, i) => [
      words(observation),
      short(seen_low[i]),
      short(seen_high[i]),
      low[i] === null || high[i] === null ? "unbounded" : range([low[i], high[i]]),
    ]),
  );
}

function showVersions(versions) {
  fillTable(
    "versions",
    versions.map(({ version, state, reason, digest }) => [
      version,
      STATES[state] ?? state,
      reason.replace(/^not selected: /, ""),
      digest || "–",
    ]),
  );
}

/** Pairs of a picture's file and its element's id; the card lists all files of the artefact. */
function pictures({ checksums }) {
  const places = { "learning_curve.png": "learning-curve", "episode.gif": "episode" };
  return Object.entries(places).filter(([file]) => `assets.extra/${file}` in checksums);
}

async function showPictures(all) {
  for (const [file, id] of all) {
    const url = await untilAnswered(client, () => client.picture(`${here}/${file}`));
    if (url === null) find(id).hidden = true; // the served version no longer has it
    else find(id).querySelector("img").src = url;
  }
}

/** Link to the cards of all models, if there are any other models. */
function showModels(models) {
  const items = models.map((model) => {
    const link = document.createElement("a");
    link.textContent = model.name;
    if (model.name === name) link.setAttribute("aria-current", "true");
    else link.href = new URL(modelPath(model.name), SERVICE);
    const item = document.createElement("li");
    item.append(link);
    return item;
  });
  find("other-models").replaceChildren(...items);
  find("others").hidden = models.every((model) => model.name === name);
}

/** Get the model as soon as a version of it is served; until then, show what there is. */
async function modelOnceServed() {
  return untilAnswered(client, async () => {
    const [{ models }, model] = await Promise.all([client.json("models"), findModel()]);
    showModels(models);
    if (model === null) {
      throw new NotServedError(
        `This service has no model called ${name}: choose another, or export one of this name.`,
      );
    }
    showVersions(model.versions);
    find("card").hidden = false;
    find("card").classList.toggle("unserved", model.policy === null);
    if (model.policy === null) throw new NotServedError(whyNothingIsServed(model));
    return model;
  });
}

/** The model with the card of its served version; null if there is no such model. */
async function findModel() {
  try {
    return await client.json(here);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function show() {
  find("title").textContent = document.title = `Policy card: ${name}`;
  const model = await modelOnceServed();
  const { version, policy } = model;
  linkCard(name);
  showServed(name, version);
  find("title").textContent = document.title = `Policy card: ${name} version ${version}`;
  showLead(model);
  showOrigin(policy);
  showEvaluations(policy);
  showRanges(policy.observations);
  find("json").textContent = JSON.stringify(policy, null, 2);
  // Reserve space for what later answers bring, so that they move nothing.
  const all = pictures(policy);
  for (const [, id] of all) find(id).hidden = false;
  find("episode").open = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const columns = isPlayable(policy) ? heatColumns(policy.observations) : null;
  const heat = columns && new HeatMap(policy.observations, columns);
  // Send requests with many rows to the version by number: these are not compared with a shadow.
  const pinned = new PinnedVersion(client, name, { version, state: "served" });
  const form = new Form(client, here, pinned, policy, (row) => heat?.mark(row));
  await Promise.all([form.run(), showPictures(all), heat && showHeatMap(heat, pinned)]);
}

async function showHeatMap(heat, pinned) {
  for (;;) {
    try {
      return await heat.show(client, pinned);
    } catch (error) {
      if (error.status === undefined) throw error;
      if (error.status !== 404) {
        find("heat-section").hidden = true; // the service accepts fewer rows per request
        return;
      }
      const { version } = await untilAnswered(client, () => client.json(here));
      if (version !== pinned.version) location.reload(); // replaced since the card was sent
      await pause(WORKERS_DIFFER_MS); // another worker of the service has not loaded it yet
    }
  }
}

showUncaughtErrors();
try {
  await show();
} catch (error) {
  showProblem(`Cannot show ${name}: ${error.message}`);
}
