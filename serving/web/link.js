/** Links to episodes: the model, the version and the seed of its start and actions. */

import { RefusedError, SERVICE } from "./client.js";
import { anchorTo, find } from "./dom.js";
import { announce } from "./notices.js";
import { SEEDS } from "./seeds.js";
import { loadedVersions, title } from "./versions.js";

/**
 * What a page's address asks for: {model, replay}, each null if the address does not give it.
 *
 * Raises RefusedError: a part of the address is invalid.
 */
export function readLink(search) {
  const query = new URLSearchParams(search);
  const model = query.get("model");
  if (!query.has("seed")) return { model, replay: null };
  const actions = query.get("actions") ?? "greedy";
  if (!["greedy", "sampled"].includes(actions)) {
    throw new RefusedError(`actions=${actions} is neither greedy nor sampled`);
  }
  const replay = {
    version: wholeNumber(query, "version", Number.MAX_SAFE_INTEGER),
    seed: wholeNumber(query, "seed", SEEDS - 1),
    spread: Number(query.get("spread") ?? 0.05),
    greedy: actions === "greedy",
  };
  if (!(replay.spread >= 0 && replay.spread <= 5)) {
    throw new RefusedError(`spread=${query.get("spread")} is not from 0 to 5`);
  }
  return { model, replay };
}

/** Link to the episode of a single cart; what the user does to it is not in the link. */
export function showLink(model, { starts, watched }, greedy) {
  const anchor = find("episode-link");
  if (model === null || starts.length > 1) {
    anchor.removeAttribute("href");
    return;
  }
  const { seed, spread } = watched;
  anchor.href = episodeAddress({ model: model.name, version: model.version, seed, spread, greedy });
}

/** Show which episode is replayed; returns its version, or undefined if that is not loaded. */
export function showReplay(report, replay) {
  const { version, seed, spread, greedy } = replay;
  const episode = `the episode with seed ${seed} of ${report.name} version ${version}`;
  const loaded = loadedVersions(report);
  const lead = find("lead");
  const found = loaded.find((other) => other.version === version);
  if (found !== undefined) {
    const leave = anchorTo(livePage(report), "Leave the replay");
    lead.replaceChildren(`This replays ${episode}. `, leave);
    showSpread(spread);
    document.querySelector(`[name=actions][value=${greedy ? "greedy" : "sampled"}]`).checked = true;
    return found;
  }
  const others = loaded.map((other) => {
    const same = { model: report.name, version: other.version, seed, spread, greedy };
    return [anchorTo(episodeAddress(same), title(other)), " "];
  });
  lead.replaceChildren(
    `This link is to ${episode}, which is not loaded. Start it with `,
    ...others.flat(),
  );
  announce(lead.textContent);
  return undefined;
}

/** Show the spread of the replay, which need not be one of those that the page offers. */
function showSpread(spread) {
  const select = find("spread");
  select.disabled = true;
  const isOffered = [...select.options].some(({ value }) => Number(value) === spread);
  if (!isOffered) select.append(new Option(`±${spread}`, spread));
  select.value = spread;
}

const livePage = ({ name, default: isDefault }) =>
  isDefault ? SERVICE.href : `?${new URLSearchParams({ model: name })}`;

function episodeAddress({ greedy, ...parts }) {
  return `?${new URLSearchParams({ ...parts, actions: greedy ? "greedy" : "sampled" })}`;
}

function wholeNumber(query, name, highest) {
  const text = query.get(name);
  if (text === null) throw new RefusedError(`the link has no ${name}`);
  if (!/^[0-9]+$/.test(text) || Number(text) > highest) {
    throw new RefusedError(`${name}=${text} is not a whole number up to ${highest}`);
  }
  return Number(text);
}
