"""The servers to test: a service of our own and, for `make test-peers`, other model servers.

`protocol/` asks for what the protocols' texts say, of every server; `ours/` for what this service
promises beyond. Another server of a CartPole artefact, such as TensorFlow Serving, can take the
place of our own:

    CONFORMANCE_URL=http://127.0.0.1:8501 pytest tests/conformance/protocol/test_tfserving.py

CONFORMANCE_MODEL is the model's name there, if it is not `cartpole`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import urllib3

from tests.conformance.servers import PEERS, Server, running_peer


def expect_error(response: urllib3.BaseHTTPResponse, status: int, message: str = "") -> None:
    """An error as this service promises it, which is more than the protocols ask for."""
    assert response.status == status, response.data
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["error"]
    assert message in answer["error"]


@pytest.fixture(scope="session")
def ours(request: pytest.FixtureRequest) -> Server:
    url = os.environ.get("CONFORMANCE_URL") or request.getfixturevalue("service").url
    return Server(url, os.environ.get("CONFORMANCE_MODEL", "cartpole"))


PARAMETERS = ["ours", *(pytest.param(name, marks=pytest.mark.peers) for name in PEERS)]


@contextmanager
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server that a fixture is parametrised with."""
    if request.param == "ours":
        yield request.getfixturevalue("ours")
        return
    with running_peer(request.param, tmp_path_factory.mktemp(request.param)) as url:
        yield Server(url, "cartpole")


@pytest.fixture(scope="session", params=PARAMETERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with running(request, tmp_path_factory) as started:
        yield started


@pytest.fixture(params=PARAMETERS)
def fresh_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server for requests that a peer does not survive; our own has to."""
    with running(request, tmp_path_factory) as started:
        yield started
