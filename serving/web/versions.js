/** The versions of a model that can answer; all decisions have the form of those of /act. */

import { modelPath } from "./client.js";
import { inRows } from "./numbers.js";

/** States of versions that are loaded, in `GET /models`. */
const LOADED = ["served", "canary", "shadow", "labelled"];

/** Versions of a model's report that are loaded: {version, state}. */
export function loadedVersions({ versions }) {
  return versions.filter(({ state }) => LOADED.includes(state));
}

/** A version with its role: "version 4 (shadow)". */
export function title({ version, state }) {
  return `version ${version} (${state})`;
}

/** The version of a model that is currently served; of the default model if `name` is null. */
export class ServedVersion {
  title = "served version";

  constructor(client, name) {
    this.client = client;
    this.path = name === null ? "act" : `${modelPath(name)}/act`;
  }

  /** Actions for rows; a `seed` repeats sampled ones. */
  async act(rows, deterministic, seed) {
    const decision = await this.client.act(rows, deterministic, { path: this.path, seed });
    this.title = title({ ...decision.model, state: "served" });
    return decision;
  }
}

/** One version, whether it is served or not. */
export class PinnedVersion {
  /** `loaded` is a version of the model's report. */
  constructor(client, name, loaded) {
    this.client = client;
    this.version = loaded.version;
    this.title = title(loaded);
    this.path = `v2/${modelPath(name)}/versions/${loaded.version}/infer`;
  }

  async act(rows, deterministic, seed) {
    const input = { name: "observations", datatype: "FP32", shape: [rows.length, rows[0].length] };
    return decision(
      await this.client.post(this.path, {
        inputs: [{ ...input, data: rows.flat() }],
        parameters: { deterministic, seed },
      }),
    );
  }
}

/** An answer of the Open Inference Protocol in the form of one to /act. */
function decision({ model_name, model_version, parameters, outputs }) {
  const tensors = outputs.map(({ name, shape: [, columns], data }) => [
    name,
    columns === undefined ? data : inRows(data, columns),
  ]);
  return {
    ...Object.fromEntries(tensors),
    model: { name: model_name, version: Number(model_version), digest: parameters.digest },
    warnings: parameters.warnings?.split("\n") ?? [],
  };
}
