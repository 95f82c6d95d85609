"""The client and the demo player against a real service."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from serving.client import PolicyClient, ServiceError
from tests.conftest import ENVIRONMENT, ROOT, Service, Trained, run, running_service


def test_the_client_takes_numbers_of_numpy(service: Service) -> None:
    row = np.zeros(4, np.float32)
    with PolicyClient(service.url) as client:
        expected = client.act([[0.0] * 4], seed=7)
        assert client.act([list(row)], seed=7) == expected
        assert client.act(row[np.newaxis], seed=7) == expected
        with pytest.raises(TypeError, match="observations cannot contain a complex"):
            client.act([[1j]])  # type: ignore[list-item]  # as a caller without types


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


def test_the_client_reports_that_no_service_answers() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServiceError, match="does not answer") as failure:
            PolicyClient(url).act([[0.0] * 4])
    assert failure.value.status is None


class Busy(BaseHTTPRequestHandler):
    """Answers 503 twice, then 200; a GET gets JSON that is not of this service."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        if type(self).requests <= 2:
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
    Busy.requests = 0
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_client_retries_while_the_service_is_busy(busy_url: str) -> None:
    with PolicyClient(busy_url) as client:
        assert client.act([[0.0]]).actions == [1]
    assert Busy.requests == 3


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


def test_play_waits_no_longer_than_its_option_says() -> None:
    start = time.monotonic()
    finished = run("serving", "play", "--url", "http://127.0.0.1:9", "--wait", "0.5")
    assert finished.returncode == 69
    assert finished.stderr.startswith("Error: http://127.0.0.1:9 does not answer")
    assert 0.5 <= time.monotonic() - start < 30


class Answering(BaseHTTPRequestHandler):
    """Answers every request with the status that its path begins with."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("answer", "status"),
    [(401, 77), (403, 77), (404, 1), (429, 75), (502, 69), (503, 75), (504, 75)],
)
def test_the_exit_status_of_play_tells_what_the_service_answered(answer: int, status: int) -> None:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/{answer}"
            finished = run("serving", "play", "--url", url)
        finally:
            server.shutdown()
    assert finished.returncode == status
    assert finished.stderr.startswith(f"Error: {url}: {answer} ")
    assert finished.stderr.count("\n") == 1


def test_play_takes_its_url_and_the_services_keys_from_variables(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "a-key-that-is-long-enough robot decide,another-key-that-is-good"
    monkeypatch.setitem(ENVIRONMENT, "SERVING_API_KEYS", keys)
    with running_service(trained.models, tmp_path / "log", "--workers", "1") as service:
        monkeypatch.setitem(ENVIRONMENT, "SERVING_URL", service.url)
        play = ("serving", "play", "--episodes", "1", "--wait", "60")
        assert run(*play).returncode == 0
        for key, status in (
            ("another-key-that-is-good", 0),
            ("a-key-of-somebody-else", 77),
            ("not a key", 2),
        ):
            monkeypatch.setitem(ENVIRONMENT, "SERVING_API_KEY", key)
            finished = run(*play)
            assert finished.returncode == status, finished.stderr


def test_play_draws_plain_lines_where_there_is_no_terminal(service: Service) -> None:
    finished = run(
        *("serving", "play", "--url", service.url, "--episodes", "1"),
        *("--render", "text", "--deterministic", "--json"),
    )
    assert finished.returncode == 0, finished.stderr
    (episode,) = json.loads(finished.stdout)["episodes"]
    lines = finished.stderr.splitlines()
    assert lines[0].startswith("episode 1  step   0  x ")
    assert lines[-1].startswith(f"episode 1  step {episode['steps']:3}  x ")
    assert len(lines) == 1 + -(-episode["steps"] // 25)
    assert "\x1b" not in finished.stderr


def test_play_draws_in_place_on_a_terminal(service: Service) -> None:
    ours, terminal = os.openpty()
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "serving", "play"),
            *("--url", service.url, "--render", "text"),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as player:
        os.close(terminal)
        shown = b""
        while b"step  20" not in shown:
            shown += os.read(ours, 65536)
        player.send_signal(signal.SIGINT)
        try:
            while os.read(ours, 65536):
                pass
        except OSError:  # how Linux says that the other side is closed
            pass
        assert player.wait(60) == 130
    os.close(ours)
    # Up to this step: more may have come with it.
    pictures = shown.decode().partition("step  20")[0].split("\x1b[9F")  # nine lines up
    assert len(pictures) == 1 + 20
    assert all(picture.count("\r\n") == 9 for picture in pictures[:-1])
    assert "[===]" in pictures[-1]


def test_play_records_the_first_episode(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "episode.gif"
    finished = run(
        *("serving", "play", "--url", service.url, "--episodes", "2", "--json"),
        *("--deterministic", "--record", str(path)),
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    first, _ = json.loads(finished.stdout)["episodes"]
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert image.size == (300, 200)
        milliseconds = 0
        for i in range(image.n_frames):  # type: ignore[attr-defined]  # of PIL's GIF images
            image.seek(i)
            milliseconds += image.info["duration"]
    # 50 steps per second: the start, every second step and the last one, 40 ms each
    assert milliseconds == 40 * (1 + first["steps"] // 2 + first["steps"] % 2)


@pytest.mark.parametrize("place", ["missing/episode.gif", "."])
def test_a_recording_that_cannot_be_written_is_reported_at_once(
    place: str, service: Service, tmp_path: Path
) -> None:
    finished = run("serving", "play", "--url", service.url, "--record", str(tmp_path / place))
    assert finished.returncode == 2
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert finished.stdout == ""


def test_an_episode_is_told_even_if_its_recording_cannot_be_saved(service: Service) -> None:
    finished = run("serving", "play", "--url", service.url, "--record", "/dev/full")
    assert finished.returncode == 2
    assert finished.stderr == "Error: --record: /dev/full: No space left on device\n"
    _, row = finished.stdout.splitlines()
    assert row.split()[0] == "1"


@pytest.mark.parametrize(("package", "named"), [("PIL", "pillow"), ("pygame", "pygame")])
def test_a_recording_without_its_packages_is_one_clear_line(
    package: str, named: str, service: Service, tmp_path: Path
) -> None:
    # As in the image of the demo player, which has neither of them.
    code = f"import sys; sys.modules[{package!r}] = None\nfrom serving.cli import main\nmain()"
    path = tmp_path / "episode.gif"
    finished = subprocess.run(
        [sys.executable, "-c", code, "play", "--url", service.url, "--record", str(path)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("Error: ")
    assert named in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not path.exists()
