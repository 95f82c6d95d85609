// Asks a service by the TypeScript client of openapi-generator.
import {
  Configuration,
  OpenInferenceProtocolApi,
  PoliciesApi,
  TensorFlowServingApi,
} from "./openapi-generator/index.js";

const [url, key, given] = process.argv.slice(2) as [string, string, string];
const rows: number[][] = JSON.parse(given);
const row = rows[0] as [number, number, number, number];
const configuration = new Configuration({ basePath: url, accessToken: key });
const policies = new PoliciesApi(configuration);
const name = "cartpole";

const acted = await policies.act({ actRequest: { observations: rows, seed: 7 } });
const observation = {
  cartPosition: row[0],
  cartVelocity: row[1],
  poleAngle: row[2],
  poleAngularVelocity: row[3],
};
const actRequest = { observation, deterministic: true };
const byName = await policies.actByName({ name, actRequest });
const inferred = await new OpenInferenceProtocolApi(configuration).oipInfer({
  name,
  inferRequest: {
    inputs: [
      { name: "observations", shape: [rows.length, row.length], datatype: "FP32", data: rows },
    ],
    parameters: { seed: 7 },
  },
});
const predictRequest = { instances: rows };
const predicted = await new TensorFlowServingApi(configuration).tfPredict({ name, predictRequest });
if (!("predictions" in predicted)) throw new Error("asked by rows, answered by columns");

console.log(
  JSON.stringify({
    act: acted.actions,
    act_by_name: byName.stateValues,
    infer: Object.fromEntries(inferred.outputs.map((tensor) => [tensor.name, tensor.data])),
    predict: predicted.predictions.map((output) => output.stateValues),
  }),
);
