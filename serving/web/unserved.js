/** Why no version of a model is served, and what to do about it. */

import { modelPath, UnavailableError } from "./client.js";

/** The model has no served version; the message says why, and what to do. */
export class NotServedError extends UnavailableError {}

/** A model with the policy card of its served version; without one a NotServedError. */
export async function servedModel(client, name) {
  const model = await client.json(modelPath(name));
  if (model.policy === null) throw new NotServedError(whyNothingIsServed(model));
  return model;
}

/** The reason and what to do, for a model without a served version in `GET /models`. */
export function whyNothingIsServed({ name, default: isDefault, versions }) {
  const promote = `\`python -m serving promote --name ${name}\``;
  const says = (text) => versions.some(({ reason }) => reason.endsWith(text));
  if (versions.length === 0) {
    const demo = name === "cartpole" ? "`make demo` or " : "";
    return (
      `The models folder has no version of ${name} yet. ` +
      `${demo}\`python -m training train --name ${name}\` makes one.`
    );
  }
  if (says("the model is unloaded")) {
    return `An operator has unloaded ${name}. ${promote} serves its newest good version again.`;
  }
  if (says("it is being examined")) {
    return `A version of ${name} is being checked, which takes seconds.`;
  }
  const selected = selectedVersion(versions);
  // The report does not say whether `promote` or the start of the service selected it.
  const restart = isDefault
    ? " If the service was started with `--pin`, restart it without that instead."
    : "";
  const wanted = versions.find(({ version }) => version === selected);
  if (selected !== null && wanted?.state !== "refused") {
    return (
      `Version ${selected} of ${name} is selected, and it is not there. ` +
      `${promote} selects the newest good one.${restart}`
    );
  }
  const refused = wanted ?? versions.find(({ state }) => state === "refused");
  if (refused === undefined) {
    return `No version of ${name} is served. ${promote} serves the newest good one.`;
  }
  const { version, reason } = refused;
  const check = `\`python -m serving verify models/${name}/${version}\` checks it again`;
  return wanted
    ? `Version ${version} of ${name} is selected, and it is refused: ${reason}. ` +
        `${check}; ${promote} selects the newest good one.${restart}`
    : `No version of ${name} is good. The newest, version ${version}, is refused: ${reason}. ` +
        `${check}; a good one is served as soon as it is exported.`;
}

/** The version that an operator has selected, found in versions' reasons; null if none. */
function selectedVersion(versions) {
  for (const { reason } of versions) {
    const found = reason.match(/version (\d+) is selected$/);
    if (found) return Number(found[1]);
  }
  return null;
}
