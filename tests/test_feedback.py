"""`POST /feedback`: what came of decisions is recorded beside them."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import urllib3

from serving.client import PolicyClient, ServiceError
from serving.demo.environment import Environment
from serving.demo.player import play
from serving.record.lines import Decision, Feedback
from serving.record.reader import read_lines
from tests.conftest import Service, Trained, run
from tests.decision_logs import JSON, recording_service

ROW = [0.01, -0.02, 0.03, 0.04]


def test_feedback_is_recorded_as_it_was_sent(trained: Trained, tmp_path: Path) -> None:
    with (
        recording_service(trained.models, tmp_path) as service,
        PolicyClient(service.url) as client,
    ):
        client.act([ROW], episode="e-1", step=0)
        client.feedback(episode="e-1", rewards=[1.0, 0.5], step=0, ended=False)
        client.feedback(episode="e-1", rewards=[-2.25], step=2)
        client.feedback(episode="e-2", episode_return=-12.5)
        client.feedback(request="abc", rewards=[1])
        client.feedback(request="def", episode_return=2, step=3, ended=False)
        played = run("serving", "play", "--url", service.url, "--episodes", "2", "--feedback")
        assert played.returncode == 0, played.stderr
        for body, detail in [
            ("{}", "exactly one of 'episode' and 'request'"),
            ('{"episode": "e", "request": "r", "return": 1}', "exactly one of 'episode'"),
            ('{"episode": "e"}', "exactly one of 'rewards' and 'return'"),
            ('{"episode": "e", "return": 1, "rewards": [1]}', "exactly one of 'rewards'"),
            ('{"episode": "e", "return": 1, "ended": false}', "is of all its steps"),
            ('{"episode": "e", "return": 1, "step": 2}', "is of all its steps"),
            ('{"episode": "e", "return": NaN}', "JSON"),
            ('{"episode": "e", "return": 1e999}', "return: number out of range"),
            ('{"episode": "e", "rewards": [0, 1e999]}', "rewards[1]: number out of range"),
            ('{"episode": "a b", "return": 1}', "episode"),
            ('{"request": "a\\n", "return": 1}', "request: expected 1 to 128 letters"),
            ('{"episode": "e", "return": 1, "return": 2}', "'return' occurs 2 times"),
            ('{"episode": "e", "rewards": [1], "step": -1}', "step"),
        ]:
            answer = urllib3.request("POST", f"{service.url}/feedback", body=body, headers=JSON)
            assert answer.status in (400, 422)
            assert detail in answer.json()["detail"]
    lines = list(read_lines(tmp_path / "record"))
    sent = [line for line in lines if isinstance(line, Feedback)]
    by_subject: dict[Any, list[tuple[Any, ...]]] = {}
    for line in sent:
        what = (line.step, line.rewards, line.return_, line.ended)
        by_subject.setdefault(line.episode or line.request, []).append(what)
    assert sorted(by_subject.pop("e-1")) == [(0, [1, 0.5], None, False), (2, [-2.25], None, True)]
    assert by_subject.pop("e-2") == [(None, None, -12.5, True)]
    assert by_subject.pop("abc") == [(None, [1.0], None, False)]
    assert by_subject.pop("def") == [(3, None, 2.0, False)]
    played_episodes = {line.episode for line in lines if isinstance(line, Decision)} - {"e-1"}
    assert by_subject.keys() == played_episodes
    for episode, of_episode in by_subject.items():
        steps = [x.step for x in lines if isinstance(x, Decision) and x.episode == episode]
        assert sorted(steps, key=str) == sorted(range(len(steps)), key=str)
        assert of_episode == [(None, None, float(len(steps)), True)]  # a reward of 1 a step


def test_feedback_that_nothing_records_is_refused(service: Service) -> None:
    with PolicyClient(service.url) as client, pytest.raises(ServiceError) as refused:
        client.feedback(episode="e", episode_return=1.0)
    assert refused.value.status == 409
    assert "--decision-log" in str(refused.value)


class Tenths(gym.Env[Any, Any]):
    """Ten steps with a reward of 0.1 each."""

    def reset(self, **_: Any) -> Any:
        self.steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, _: Any) -> Any:
        self.steps += 1
        return np.zeros(4, np.float32), 0.1, self.steps == 10, False, {}


def test_the_player_rounds_a_return_once(service: Service) -> None:
    environment = Environment(Tenths(), "Tenths-v0", ["left", "right"], 0, {}, is_cartpole=False)
    how: dict[str, Any] = {"model": None, "episodes": 1, "deterministic": True, "seed": 0}
    with PolicyClient(service.url) as client:
        *_, last = play(client, environment, feedback=False, **how)
    assert last.episode_return == 1.0  # and not 0.9999999999999999
