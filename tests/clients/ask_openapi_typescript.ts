// Asks a service by openapi-fetch with the types of openapi-typescript.
import createClient from "openapi-fetch";

import type { paths } from "./openapi-typescript.js";

const [url, key, given] = process.argv.slice(2) as [string, string, string];
const rows: number[][] = JSON.parse(given);
const row = rows[0] as [number, number, number, number];
const client = createClient<paths>({
  baseUrl: url,
  headers: { Authorization: `Bearer ${key}` },
});
const params = { path: { name: "cartpole" } };

function done<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const acted = done(await client.POST("/act", { body: { observations: rows, seed: 7 } }));
const observation = {
  cart_position: row[0],
  cart_velocity: row[1],
  pole_angle: row[2],
  pole_angular_velocity: row[3],
};
const single = { observation, deterministic: true };
const byName = done(await client.POST("/models/{name}/act", { params, body: single }));
const inferred = done(
  await client.POST("/v2/models/{name}/infer", {
    params,
    body: {
      inputs: [
        { name: "observations", shape: [rows.length, row.length], datatype: "FP32", data: rows },
      ],
      parameters: { seed: 7 },
    },
  }),
);
const predicted = done(
  await client.POST("/v1/models/{name}:predict", { params, body: { instances: rows } }),
);
if (typeof inferred === "string") throw new Error("asked for JSON, answered in binary");
if (!("predictions" in predicted)) throw new Error("asked by rows, answered by columns");

console.log(
  JSON.stringify({
    act: acted.actions,
    act_by_name: byName.state_values,
    infer: Object.fromEntries(inferred.outputs.map((tensor) => [tensor.name, tensor.data])),
    predict: predicted.predictions.map((output) => output.state_values),
  }),
);
