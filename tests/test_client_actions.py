"""The client's actions as an environment numbers them, against a real service."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client import PolicyClient, ServiceError
from serving.policy.artefact import ArtefactError, read
from serving.registry.selection import Canary, Selection, write_selection
from serving.schemas import ActResponse, ModelVersion
from tests.artefacts import edit_card, publish
from tests.conftest import Trained, running_service, wait_until

ROWS = [[0.0, 0.0, 0.2, 0.0], [0.0, 0.0, -0.2, 0.0]]  # falling right and left


def starting_at(start: int) -> Callable[[Path], None]:
    return lambda model_dir: edit_card(model_dir, lambda card: card["actions"].update(start=start))


def response(*actions: int, version: int = 1, digest: str = "") -> ActResponse:
    outputs = [[0.0]] * len(actions)
    model = ModelVersion("shifted", version, digest)
    return ActResponse(list(actions), outputs, outputs, [0.0], [0.0], 1, model, [])


def test_actions_are_the_environments_own_for_every_model(trained: Trained, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name, change in (("cartpole", lambda _: None), ("shifted", starting_at(-3))):
        (models / name).mkdir(parents=True)
        publish(trained.model_dir, models / name / "1", change)
    publish(trained.model_dir, models / "shifted" / "2", starting_at(-3))
    write_selection(models / "shifted", Selection(1, canaries=(Canary(2, 1.0),)))
    options = ("--workers", "1", "--name", "cartpole")
    with (
        running_service(models, tmp_path / "log", *options) as service,
        PolicyClient(service.url) as client,
    ):
        client.wait_until_ready(60)
        wait_until(lambda: all(model.version == 1 for model in client.models().models))
        assert "start" not in client.policy_card()["actions"]
        assert client.policy_card("shifted")["actions"]["start"] == -3
        wait_until(lambda: client.models().models[1].versions[0].state == "canary")
        for model, episode, version, start in (
            (None, None, 1, 0),
            ("shifted", None, 1, -3),
            ("shifted", "of-the-canary", 2, -3),
        ):
            answer = client.act(ROWS, deterministic=True, model=model, episode=episode)
            assert answer.model.version == version
            assert answer.actions == [1, 0]  # push the cart under its pole
            actions = client.environment_actions(answer)
            assert actions.dtype == np.int64
            assert actions.tolist() == [1 + start, start]
        with pytest.raises(ServiceError, match="missing"):
            client.policy_card("missing")


@contextmanager
def answering(*answers: Any) -> Iterator[tuple[str, list[str]]]:
    """An address that gives each answer in turn, and the last for ever; the paths asked for."""
    asked: list[str] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(answers[min(len(asked), len(answers)) - 1]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def served(version: int | None, start: object = 0) -> dict[str, Any]:
    card = None if version is None else {"actions": {"names": ["a", "b"], "start": start}}
    return {"name": "shifted", "version": version, "policy": card}


def test_the_card_is_fetched_once_for_each_version() -> None:
    with answering(served(1, 5), served(2, 7)) as (url, asked), PolicyClient(url) as client:
        for _ in range(3):
            assert client.environment_actions(response(0, 1)).tolist() == [5, 6]
        assert client.environment_actions(response(0, version=2)).tolist() == [7]
        assert client.environment_actions(response(0)).tolist() == [5]
        assert client.environment_actions(response()).tolist() == []
    assert asked == ["/models/shifted"] * 2


def test_the_card_of_another_version_is_never_used() -> None:
    # One worker answered with version 2 already, another has not replaced version 1 yet.
    with answering(served(1, 5), served(None), served(2, 7)) as (url, asked):
        assert PolicyClient(url).environment_actions(response(0, version=2)).tolist() == [7]
        assert len(asked) == 3
    with (
        answering(served(3, 5)) as (url, _),
        pytest.raises(ServiceError, match=r"with version 2 of shifted, and serves .* version 3"),
    ):
        PolicyClient(url, timeout=0.2).environment_actions(response(0, version=2))


def beside(state: str, share: float, digest: str = "abc") -> dict[str, Any]:
    """The served version 1, and a version 2."""
    other = {"version": 2, "state": state, "reason": "", "digest": digest, "share": share}
    return served(1, 5) | {"versions": [other]}


def test_the_actions_of_a_canary_are_those_of_the_served_version() -> None:
    # The first worker has not loaded the canary yet.
    answers = beside("waiting", 0.0), beside("canary", 0.1)
    with answering(*answers) as (url, asked), PolicyClient(url) as client:
        answer = response(0, 1, version=2, digest="abc")
        for _ in range(2):
            assert client.environment_actions(answer).tolist() == [5, 6]
        assert len(asked) == 2


@pytest.mark.parametrize(
    "report",
    [
        beside("canary", 0.0),  # its actions are not those of the served version
        beside("canary", 0.1, digest="def"),
        beside("labelled", 0.0),
    ],
)
def test_the_served_card_is_not_used_for_a_version_that_may_have_other_actions(
    report: dict[str, Any],
) -> None:
    with answering(report) as (url, _), pytest.raises(ServiceError, match="card of version 1"):
        PolicyClient(url, timeout=0.2).environment_actions(response(0, version=2, digest="abc"))


@pytest.mark.parametrize("start", ["1", None, 1.5, True, 2**53, -(2**70)])
def test_a_first_action_that_is_no_whole_number_is_refused(start: object) -> None:
    with (
        answering(served(1, start)) as (url, _),
        pytest.raises(ServiceError, match="not an answer of the policy service"),
    ):
        PolicyClient(url).environment_actions(response(0))


@pytest.mark.parametrize("start", ["1", None, 1.5, 2**53, -(2**53)])
def test_a_version_whose_first_action_is_no_whole_number_is_refused(
    start: object, trained: Trained, tmp_path: Path
) -> None:
    def change(model_dir: Path) -> None:
        edit_card(model_dir, lambda card: card["actions"].update(start=start))

    with pytest.raises(ArtefactError, match=r"policy\.json: .*actions\.start"):
        read(publish(trained.model_dir, tmp_path / "1", change))
    assert read(publish(trained.model_dir, tmp_path / "2", starting_at(-3))).card.actions.start < 0
