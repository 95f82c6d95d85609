"""The client and the demo player against a real service."""

import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest

from serving.client import PolicyClient, ServiceError
from tests.conftest import Service, run


def test_the_client_answers_with_types(service: Service) -> None:
    client = PolicyClient(service.url)
    decision = client.act([[0.0, 0.0, 0.0, 0.0]], seed=3)
    assert decision.actions[0] in (0, 1)
    assert decision.seed == 3
    assert (decision.model.name, decision.model.version) == ("cartpole", 1)
    assert decision == client.act(np.zeros((1, 4), np.float32), seed=3)
    named = {"cart_position": 0, "cart_velocity": 0, "pole_angle": 0, "pole_angular_velocity": 0}
    assert decision == client.act([named], seed=3)


def test_the_client_raises_what_the_service_says(service: Service) -> None:
    with pytest.raises(ServiceError, match="3 numbers, expected 4") as refusal:
        PolicyClient(service.url).act([[0.0, 0.0, 0.0]])
    assert refusal.value.status == 422


def test_the_client_says_when_nobody_answers() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServiceError, match="does not answer") as failure:
            PolicyClient(url).act([[0.0] * 4])
    assert failure.value.status is None


class Busy(BaseHTTPRequestHandler):
    """Answers 503 twice, then as asked; something else than the service on other paths."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        if type(self).asked <= 2:
            self._answer(503, {"detail": "too busy"})
        else:
            self._answer(
                200,
                {
                    "actions": [1],
                    "action_logits": [[0, 0]],
                    "action_probabilities": [[0.5, 0.5]],
                    "log_probabilities": [-0.7],
                    "state_values": [1],
                    "seed": 1,
                    "model": {"name": "m", "version": 1},
                    "warnings": [],
                },
            )

    def do_GET(self) -> None:
        self._answer(200, ["something else"])

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def busy_url() -> Iterator[str]:
    Busy.asked = 0
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_client_asks_again_while_the_service_is_busy(busy_url: str) -> None:
    with PolicyClient(busy_url) as client:
        assert client.act([[0.0]]).actions == [1]
    assert Busy.asked == 3


def test_the_client_names_what_is_not_the_service(busy_url: str) -> None:
    with (
        PolicyClient(busy_url) as client,
        pytest.raises(ServiceError, match="not an answer of the policy service"),
    ):
        client.policy_card()


def test_play_prints_a_table_of_real_episodes(service: Service) -> None:
    finished = run("serving", "play", "--url", service.url, "--episodes", "2")
    assert finished.returncode == 0, finished.stderr
    heading, *rows = finished.stdout.splitlines()
    assert heading.split() == ["episode", "return", "mean", "latency"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert all(float(row.split()[1]) > 300 for row in rows)


def test_play_repeats_itself_with_a_seed(service: Service) -> None:
    def returns(*options: str) -> list[float]:
        finished = run(
            *("serving", "play", "--url", service.url, "--json", "--episodes", "2"), *options
        )
        assert finished.returncode == 0, finished.stderr
        result = json.loads(finished.stdout)
        assert result["environment"] == "CartPole-v1"
        return [episode["episode_return"] for episode in result["episodes"]]

    assert returns("--seed", "5") == returns("--seed", "5")
    assert min(returns("--deterministic")) > 300


def test_play_waits_no_longer_than_asked() -> None:
    start = time.monotonic()
    finished = run("serving", "play", "--url", "http://127.0.0.1:9", "--wait", "0.5")
    assert finished.returncode == 2
    assert finished.stderr.startswith("Error: http://127.0.0.1:9 does not answer")
    assert 0.5 <= time.monotonic() - start < 30
