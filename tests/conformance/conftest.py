"""Where the conformance suite asks: a service of our own, or whatever CONFORMANCE_URL names.

The suite holds any server of a CartPole policy's artefact to the two protocols, so that it can be
pointed at a real TensorFlow Serving (`test_tfserving*.py`) or KServe or Triton (`test_oip*.py`):

    CONFORMANCE_URL=http://127.0.0.1:8501 pytest tests/conformance/test_tfserving.py

CONFORMANCE_MODEL is the model's name there, if it is not `cartpole`.
"""

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import urllib3

ROWS = [[0.01, -0.02, 0.03, 0.04], [-0.1, 0.2, 0.05, -0.3], [0.0, 1.0, 0.0, -1.0]]
OUTPUTS = {
    "action_logits": ("FP32", [-1, 2]),
    "action_probabilities": ("FP32", [-1, 2]),
    "actions": ("INT64", [-1]),
    "greedy_actions": ("INT64", [-1]),
    "log_probabilities": ("FP32", [-1]),
    "state_values": ("FP32", [-1]),
}


class Server(NamedTuple):
    """A server, and the name of the model there."""

    pool: urllib3.HTTPConnectionPool
    model: str

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send a body: bytes as they are, anything else as JSON. `{model}` is the model."""
        if not isinstance(body, bytes | None):
            body = json.dumps(body).encode()
        path = path.replace("{model}", self.model)
        return self.pool.urlopen(
            method, path, body=body, headers=headers or {}, retries=False, redirect=False
        )


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    url = os.environ.get("CONFORMANCE_URL") or request.getfixturevalue("service").url
    with urllib3.connection_from_url(url, timeout=60) as pool:
        yield Server(pool, os.environ.get("CONFORMANCE_MODEL", "cartpole"))


def expect_error(response: urllib3.BaseHTTPResponse, status: int, message: str = "") -> None:
    """The one shape of both protocols' errors."""
    assert response.status == status, response.data
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["error"]
    assert message in answer["error"]
