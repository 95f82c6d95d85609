"""The command `tune`: what would share a study, score nothing, not end or not be read."""

import os
import tomllib
from dataclasses import replace
from pathlib import Path

import click
import optuna
import pytest

from tests.conftest import ENVIRONMENT, ROOT, run
from tests.test_tune import SMALL, handlers, own, small, tuning  # noqa: F401  # fixtures
from training.config import ConfigError
from training.config_options import to_toml
from training.study import Study, begin
from training.trial import score, scores_by_point
from training.tune_command import tune

ENDS = """
import os
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Ends(CartPoleEnv):
    def step(self, action):
        os._exit(0)

gym.register("Ends-v0", entry_point=Ends, max_episode_steps=9, reward_threshold=9.0)
"""


@pytest.mark.parametrize("name", ["a%41.db", "a%25.db", "a#b ;@:+.db"])
def test_a_study_is_in_the_file_that_was_named_and_in_no_other(name: str, tmp_path: Path) -> None:
    begin(Study("small", tmp_path / name, small(), ["gamma"], 1))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.usefixtures("own")
def test_a_preset_that_waits_for_its_running_return_is_scored_as_it_learns() -> None:
    config = replace(small(), reward_threshold=100.0)  # never reached
    waits = replace(config, wait_for_running_return=True)
    assert list(scores_by_point(waits, 1)) == list(scores_by_point(config, 1))


def test_a_study_whose_processes_end_without_a_trial_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends.py").write_text(ENDS)
    (tmp_path / "small.toml").write_text(to_toml(SMALL))
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{tmp_path}:{ROOT}")
    options = ("--env-id", "ends:Ends-v0", "--trials", "1")
    finished = run(*tuning(tmp_path, tmp_path, *options), timeout=60)
    line = "Error: the processes ended without a trial\n"
    assert (finished.returncode, finished.stdout, finished.stderr) == (1, "", line)


def test_names_of_files_are_no_part_of_the_toml(
    own: Path,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    config, output = tmp_path / "a\nb.toml", tmp_path / "c\nd\udcff.toml"
    config.write_text((own / "small.toml").read_text())
    options = ("--config", str(config), "--output", str(output), "--trials", "1")
    finished = run(*tuning(own, tmp_path, *options))
    assert finished.returncode == 0, finished.stderr
    assert f"{tmp_path}/c?d?.toml: python -m training train" in finished.stdout
    assert "the study a?b, " in output.read_text()
    assert tomllib.loads(output.read_text())["env_id"] == "own:Plain-v0"


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push-standard-deviation", "0.5"], "push_standard_deviation works only with"),
        (["--storage", os.fsdecode(b"\xff.db")], "cannot be used: "),
    ],
)
def test_a_mistake_stores_no_study(
    own: Path,  # noqa: F811  # the fixture
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.ClickException) as refused:
        tune.main(tuning(own, tmp_path, *options)[2:], standalone_mode=False)
    assert refused.value.exit_code == 2
    assert message in refused.value.format_message()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


@pytest.mark.usefixtures("own")
def test_a_mistake_that_a_trainer_tells_is_no_bad_trial() -> None:
    study = optuna.create_study()
    pushed = replace(small(), push_standard_deviation=0.5)
    with pytest.raises(ConfigError, match="push_standard_deviation works only with"):
        study.optimize(lambda trial: score(trial, pushed, ["gamma"], 1), n_trials=1)
