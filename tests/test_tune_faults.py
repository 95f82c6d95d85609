"""The command `tune`: what would share a study, score nothing, not end or not be read."""

import os
import resource
import tomllib
from dataclasses import replace
from functools import partial
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
        (["--output", "study.db"], "study.db: give another --output"),
        (
            ["--config", "link.toml", "--output", "mine.toml"],
            "the results would overwrite link.toml",
        ),
        (["--output", "pipe"], "pipe: it is not a regular file"),
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
    Path("mine.toml").touch()
    Path("link.toml").symlink_to("mine.toml")
    os.mkfifo("pipe")
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


def test_the_best_is_printed_even_if_its_file_cannot_be_written(
    own: Path,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    output = tmp_path / f"{'n' * 245}.toml"  # too long for the name of the file beside it
    finished = run(*tuning(own, tmp_path, "--trials", "1", "--output", str(output)))
    assert finished.returncode == 1
    assert finished.stdout.startswith("best is trial 0, score ")
    assert finished.stderr.endswith(f"Error: {output} cannot be written: File name too long\n")
    assert "Traceback" not in finished.stderr


def test_a_link_to_the_output_stays_a_link(
    own: Path,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.touch()
    link.symlink_to(real)
    finished = run(*tuning(own, tmp_path, "--trials", "1", "--output", str(link)))
    assert finished.returncode == 0, finished.stderr
    assert link.is_symlink()
    assert tomllib.loads(real.read_text())["env_id"] == "own:Plain-v0"


def test_a_disk_that_fills_ends_the_search_with_one_line_and_keeps_its_trials(
    own: Path,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    study = tuning(own, tmp_path)
    assert run(*study, "--trials", "1").returncode == 0
    size = (tmp_path / "study.db").stat().st_size
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    ended = run(*study, "--trials", "40", preexec_fn=limit)
    assert ended.returncode == 1
    line = f"Error: {tmp_path}/study.db cannot be used: disk I/O error; "
    assert ended.stderr.splitlines()[-1] == line + "the same command continues the study"
    assert "Traceback" not in ended.stderr
    assert run(*study, "--trials", "2").returncode == 0
