"""Asks a service by the client of openapi-python-client: the package `policies`."""

import json
import sys
from typing import TypeVar

from policies import AuthenticatedClient
from policies.api.open_inference_protocol import oip_infer
from policies.api.policies import act, act_by_name
from policies.api.tensor_flow_serving import tf_predict
from policies.models import (
    ActBatchRequest,
    ActResponse,
    ActSingleRequest,
    InferInput,
    InferRequest,
    InferResponse,
    NamedRow,
    PredictRowsRequest,
    PredictRowsResponse,
    RequestParameters,
)

T = TypeVar("T")


def answer(parsed: object, kind: type[T]) -> T:
    assert isinstance(parsed, kind), parsed
    return parsed


url, key, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = AuthenticatedClient(url, token=key)
named = NamedRow(*rows[0])
observations = InferInput(
    name="observations", shape=[len(rows), len(rows[0])], datatype="FP32", data=rows
)
infer = InferRequest(inputs=[observations], parameters=RequestParameters(seed=7))
acted = answer(act.sync(client=client, body=ActBatchRequest(rows, seed=7)), ActResponse)
single = ActSingleRequest(named, deterministic=True)
by_name = answer(act_by_name.sync("cartpole", client=client, body=single), ActResponse)
inferred = answer(oip_infer.sync("cartpole", client=client, body=infer), InferResponse)
instances = PredictRowsRequest(instances=rows)
predicted = answer(tf_predict.sync("cartpole", client=client, body=instances), PredictRowsResponse)
answers = {
    "act": acted.actions,
    "act_by_name": by_name.state_values,
    "infer": {tensor.name: tensor.data for tensor in inferred.outputs},
    "predict": [row.state_values for row in predicted.predictions],
}
json.dump(answers, sys.stdout)
