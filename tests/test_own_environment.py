"""The package in `examples/`: trained, exported, evaluated, served and played as its docs say."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.client import PolicyClient
from tests.conftest import ENVIRONMENT, ROOT, Trained, run, running_service

NAMES = ["heater_1", "heater_2", "heater_3", "outside", "room"]
ALLOW = ("--allow-module", "thermostat")


@pytest.fixture(scope="module", autouse=True)
def package() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "PYTHONPATH", f"{ROOT / 'examples'}:{ROOT}")
        yield


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    finished = run(
        *("training", "train", "--env-id", "thermostat:Thermostat-v0", "--name", "thermostat"),
        *("--env-kwargs", '{"target": 18}', "--action-names", "off,low,high"),
        *("--models", f"{folder}/models", "--run-dir", f"{folder}/run"),
        *("--max-env-steps", "30000", "--evaluation-episodes", "30"),
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("no reward threshold, the best evaluated policy is kept\n")
    return folder / "models" / "thermostat" / "1"


def test_the_card_has_all_that_it_takes_to_make_the_environment(version: Path) -> None:
    card = json.loads((version / "assets.extra" / "policy.json").read_text())
    assert card["environment"] == "thermostat:Thermostat-v0"
    assert card["environment_options"]["kwargs"] == {"target": 18}
    assert card["observations"]["names"] == NAMES
    assert card["actions"] == {"names": ["off", "low", "high"], "start": 1}
    assert (card["solved"], card["reward_threshold"]) == (True, None)
    assert card["evaluation"]["greedy"]["mean"] > 60  # of 96; always off is far below 40
    assert card["training"]["evaluation_steps"] > 96 * 30 * 2
    assert (version / "assets.extra" / "episode.gif").exists()


@pytest.mark.long
def test_it_is_evaluated_and_drawn_only_where_its_module_is_allowed(
    version: Path, tmp_path: Path
) -> None:
    for command in (["evaluate", "--episodes", "5"], ["render", "--output", f"{tmp_path}/a.gif"]):
        refused = run("training", *command, str(version))
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert refused.stderr.endswith("imported only with --allow-module thermostat\n")
        finished = run("training", *command, str(version), *ALLOW)
        assert finished.returncode == 0, finished.stderr


def test_without_its_package_it_is_one_line(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    finished = run("training", "evaluate", str(version), *ALLOW)
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "No module named 'thermostat'" in finished.stderr


def test_it_is_verified_served_and_played(version: Path, trained: Trained, tmp_path: Path) -> None:
    verified = run("serving", "verify", str(version))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    models = version.parents[1]
    shutil.copytree(trained.model_dir, models / "cartpole" / "1")  # the default model
    with (
        running_service(models, tmp_path / "log") as service,
        PolicyClient(service.url) as client,
    ):
        client.wait_until_ready(60)
        row = dict.fromkeys(NAMES, 0) | {"room": 12, "heater_1": 1}
        answer = client.act([row], model="thermostat")
        assert answer.actions[0] in range(3)
        np.testing.assert_array_equal(client.environment_actions(answer), answer.actions[0] + 1)
        play = ("serving", "play", "--url", service.url, "--model", "thermostat")
        refused = run(*play)
        assert refused.returncode == 2
        assert "--allow-module thermostat" in refused.stderr
        gif = tmp_path / "played.gif"
        played = run(
            *(*play, "--episodes", "2", "--json", "--record", str(gif), "--deterministic"), *ALLOW
        )
    assert played.returncode == 0, played.stderr
    for episode in json.loads(played.stdout)["episodes"]:
        assert episode["steps"] == 96
        assert episode["episode_return"] > 30
    assert gif.read_bytes().startswith(b"GIF")
