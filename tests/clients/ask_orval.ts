// Asks a service by the client of orval, which calls `fetch` with the paths of the description.
import { act, actByName, oipInfer, tfPredict } from "./orval.js";

const [url, key, given] = process.argv.slice(2) as [string, string, string];
const rows: number[][] = JSON.parse(given);
const row = rows[0] as [number, number, number, number];
const original = fetch;
globalThis.fetch = (path, options) => original(url + path, options);
const options = { headers: { Authorization: `Bearer ${key}` } };

const acted = await act({ observations: rows, seed: 7 }, options);
if (acted.status !== 200) throw new Error(acted.data.detail);
const observation = {
  cart_position: row[0],
  cart_velocity: row[1],
  pole_angle: row[2],
  pole_angular_velocity: row[3],
};
const byName = await actByName("cartpole", { observation, deterministic: true }, options);
if (byName.status !== 200) throw new Error(byName.data.detail);
const infer = {
  inputs: [
    { name: "observations", shape: [rows.length, row.length], datatype: "FP32", data: rows },
  ],
  parameters: { seed: 7 },
};
const inferred = await oipInfer("cartpole", infer, options);
if (inferred.status !== 200) throw new Error(inferred.data.error);
if (inferred.data instanceof Blob) throw new Error("asked for JSON, answered in binary");
const predicted = await tfPredict("cartpole", { instances: rows }, options);
if (predicted.status !== 200) throw new Error(predicted.data.error);
if (!("predictions" in predicted.data)) throw new Error("asked by rows, answered by columns");

console.log(
  JSON.stringify({
    act: acted.data.actions,
    act_by_name: byName.data.state_values,
    infer: Object.fromEntries(inferred.data.outputs.map((tensor) => [tensor.name, tensor.data])),
    predict: predicted.data.predictions.map((output) => output.state_values),
  }),
);
