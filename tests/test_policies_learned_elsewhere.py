"""The examples: policies that other programs learn, exported, verified and served."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from serving.client import PolicyClient
from tests.conftest import ENVIRONMENT, ROOT, run, running_service

PEER = ROOT / ".peers" / "stable-baselines3"


class Example(NamedTuple):
    program: str  # in examples/
    model: str
    environment: Path  # of Python


KERAS = Example("keras_actor_critic.py", "cartpole-keras", Path(sys.prefix))
STABLE_BASELINES3 = Example("stable_baselines3_ppo.py", "cartpole-sb3", PEER)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(KERAS, marks=pytest.mark.long),
        pytest.param(STABLE_BASELINES3, marks=pytest.mark.peers),
    ],
    ids=["keras", "stable-baselines3"],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version that an example exported."""
    example: Example = request.param
    if example.environment == PEER:
        assert (PEER / "installed").exists(), "`make test-peers` installs it"
    models = tmp_path_factory.mktemp("elsewhere") / "models"
    finished = subprocess.run(
        [
            *(example.environment / "bin" / "python", ROOT / "examples" / example.program),
            *("--models", models, "--seed", "1"),
        ],
        cwd=models.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    version = models / example.model / "1"
    assert finished.stdout == f"{version}\n"
    return version


def read(version: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((version / "assets.extra" / name).read_text())
    return content


def test_it_is_verified_and_reaches_the_threshold(exported: Path) -> None:
    verified = run("serving", "verify", str(exported))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    card = read(exported, "policy.json")
    assert card["solved"] is True
    for kind in ("greedy", "sampled"):
        assert card["evaluation"][kind]["episodes"] == 100
        assert card["evaluation"][kind]["mean"] >= card["reward_threshold"] == 475.0


def test_it_is_served(exported: Path, tmp_path: Path) -> None:
    golden = read(exported, "golden.json")
    options = ("--name", exported.parent.name)
    with (
        running_service(exported.parents[1], tmp_path / "log", *options) as service,
        PolicyClient(service.url) as client,
    ):
        client.wait_until_ready(60)
        answer = client.act(golden["observations"], deterministic=True)
    assert answer.actions == np.argmax(golden["action_logits"], axis=1).tolist()
    np.testing.assert_allclose(answer.action_logits, golden["action_logits"], atol=1e-4)
    np.testing.assert_allclose(answer.state_values, golden["state_values"], rtol=1e-4)
