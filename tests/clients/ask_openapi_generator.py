"""Asks a service by the Python client of openapi-generator: the package `openapi_client`."""

import json
import sys

from openapi_client import (
    ActBatchRequest,
    ActRequest,
    ActSingleRequest,
    ApiClient,
    Configuration,
    InferInput,
    InferRequest,
    NamedRow,
    OpenInferenceProtocolApi,
    PoliciesApi,
    PredictRequest,
    PredictRowsRequest,
    PredictRowsResponse,
    RequestParameters,
    Row,
    TensorFlowServingApi,
)

url, key, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = ApiClient(Configuration(host=url, access_token=key))
policies = PoliciesApi(client)
batch = ActBatchRequest(observations=[Row(row) for row in rows], seed=7)
names = ("cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity")
named = NamedRow(**dict(zip(names, rows[0], strict=True)))
single = ActSingleRequest(observation=Row(named), deterministic=True)
observations = InferInput(
    name="observations", shape=[len(rows), len(rows[0])], datatype="FP32", data=rows
)
infer = InferRequest(inputs=[observations], parameters=RequestParameters(seed=7))
inferred = OpenInferenceProtocolApi(client).oip_infer("cartpole", infer)
instances = PredictRequest(PredictRowsRequest(instances=rows))
predicted = TensorFlowServingApi(client).tf_predict("cartpole", instances).actual_instance
assert isinstance(predicted, PredictRowsResponse)
answers = {
    "act": policies.act(ActRequest(batch)).actions,
    "act_by_name": policies.act_by_name("cartpole", ActRequest(single)).state_values,
    "infer": {tensor.name: tensor.data for tensor in inferred.outputs},
    "predict": [row.state_values for row in predicted.predictions],
}
json.dump(answers, sys.stdout)
