"""Requests of the Open Inference Protocol v2, and what its text says of answers.

The text is `specification/protocol/inference_rest.md` of kserve/open-inference-protocol and, where
marked "KServe", `docs/predict-api/v2/required_api.md` of kserve/kserve, which it grew from.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import urllib3

from tests.conformance.peers.network import DTYPES, OUTPUTS
from tests.conformance.servers import Server

INFER = "/v2/models/{model}/infer"
ROWS = [[0.01, -0.02, 0.03, 0.04], [-0.1, 0.2, 0.05, -0.3], [0.0, 1.0, 0.0, -1.0]]
FLAT = [number for row in ROWS for number in row]
TENSOR = {"name": "observations", "shape": [3, 4], "datatype": "FP32", "data": FLAT}
# What the model does not sample.
REPEATABLE = ("action_logits", "action_probabilities", "greedy_actions", "state_values")

Arrays = dict[str, npt.NDArray[Any]]


def post(server: Server, body: Any, path: str = INFER) -> urllib3.BaseHTTPResponse:
    return server.ask("POST", path, body, {"Content-Type": "application/json"})


def get(server: Server, path: str) -> Any:
    """The JSON of a successful answer."""
    response = server.ask("GET", path)
    assert response.status == 200, response.data
    return response.json()


def infer(server: Server, body: Any, path: str = INFER) -> dict[str, Any]:
    """The $inference_response of a request that must succeed."""
    response = post(server, body, path)
    assert response.status == 200, response.data
    answer: dict[str, Any] = response.json()
    return answer


def read(answer: dict[str, Any]) -> Arrays:
    """The outputs of an answer in JSON, whose data may be flat or nested."""
    arrays = {}
    for tensor in answer["outputs"]:
        array = np.array(tensor["data"], DTYPES[tensor["datatype"]])
        assert array.size == math.prod(tensor["shape"])
        arrays[tensor["name"]] = array.reshape(tensor["shape"])
    return arrays


def expect_same(arrays: Arrays, expected: Arrays) -> None:
    """The same outputs, as far as the model does not sample them."""
    assert arrays.keys() == expected.keys()
    for name in arrays.keys() & set(REPEATABLE):
        # Not to the last bit: servers may batch, and write numbers, in different ways.
        np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-5, atol=1e-6)


def expect_tensors(arrays: Arrays, rows: int) -> None:
    """All outputs of the model for a number of rows."""
    assert arrays.keys() == OUTPUTS.keys()
    for name, (datatype, shape) in OUTPUTS.items():
        assert arrays[name].dtype == DTYPES[datatype]
        assert list(arrays[name].shape) == [rows, *shape[1:]]


def expect_failure(response: urllib3.BaseHTTPResponse) -> None:
    """A failed request "must be indicated by an HTTP error status (typically 400)", with a body
    that "must contain" an object with the field "error", a string.
    """
    assert 400 <= response.status < 600, response.data
    assert response.data.startswith(b"{"), response.data
    assert isinstance(response.json().get("error"), str), response.data
