"""A run that gets a larger budget keeps it, whenever it is stopped."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import run
from tests.runs import SMALL, new_run, resume, small_settings
from tests.test_run import KilledError, killed_after, stopped_after, to_the_end, weights
from tests.test_run_signals import training
from training.config import TrainingConfig
from training.folder import RESULT, SETTINGS, claim, extend, locked, read_settings

SPENT = dataclasses.replace(SMALL, max_env_steps=1_000, checkpoint_interval=1_000)
LARGER = dataclasses.replace(SPENT, max_env_steps=3_000)


@pytest.mark.parametrize(
    ("stop", "updates"),
    [(stopped_after, 0), (killed_after, 2)],  # a stop after an update makes a checkpoint
)
def test_a_larger_budget_outlives_a_stop_before_the_next_checkpoint(
    stop: Callable[[TrainingConfig, Path, int], None], updates: int, tmp_path: Path
) -> None:
    expected_folder, folder = tmp_path / "never", tmp_path / "stopped"
    for one in (expected_folder, folder):
        one.mkdir()
        ended, result = to_the_end(SPENT, one)
        assert not result.solved
    stop(LARGER, folder, ended.state.update + updates)
    trainer, result = to_the_end(LARGER, folder)
    expected_trainer, expected = to_the_end(LARGER, expected_folder)
    assert trainer.state.env_steps == expected_trainer.state.env_steps >= 3_000
    for left, right in zip(
        weights(trainer, result), weights(expected_trainer, expected), strict=True
    ):
        assert left.tobytes() == right.tobytes()
    assert result[1:] == expected[1:]
    assert (folder / "metrics.csv").read_bytes() == (expected_folder / "metrics.csv").read_bytes()


@pytest.mark.parametrize("step", ["training.folder.write_settings", "pathlib.Path.unlink"])
def test_a_kill_while_the_budget_is_written_leaves_a_run_that_can_get_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = new_run(tmp_path)
    (folder / RESULT).write_text('{"solved": false}')

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(step, killed)
        with pytest.raises(KilledError):
            extend(folder, read_settings(folder), 26_000)
    extend(folder, read_settings(folder), 26_000)
    assert read_settings(folder).config.max_env_steps == 26_000
    assert not (folder / RESULT).exists()


def test_a_larger_budget_leaves_when_and_with_what_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {"created": "2026-01-02T03:04:05+00:00", "git_commit": "ab", "versions": {"numpy": "1"}}
    with monkeypatch.context() as patch:
        patch.setattr("training.folder.provenance", lambda: older)
        folder, _ = new_run(tmp_path)
    extend(folder, read_settings(folder), 26_000)
    stored = json.loads((folder / SETTINGS).read_text())
    assert {**stored, **older} == stored
    assert stored["config"]["max_env_steps"] == 26_000
    assert read_settings(folder).config.max_env_steps == 26_000


@pytest.mark.long
def test_a_signal_to_the_command_does_not_take_the_larger_budget_back(tmp_path: Path) -> None:
    outcomes = []
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        folder, models = tmp_path / f"run{number}", tmp_path / f"models{number}"
        settings = small_settings(models)._replace(config=SPENT, allow_unsolved=False)
        with locked(folder):
            claim(folder, settings)
        assert run("training", "train", *resume(folder)).returncode == 3
        larger = (*resume(folder), "--max-env-steps", "20000")
        if number is None:
            assert run("training", "train", *larger).returncode == 3
        else:
            with training(*larger) as started:
                if number is signal.SIGKILL:
                    next(started.reports())
                else:  # before the first of the new updates
                    assert started.stderr.readline() == f"training in {folder}\n"
                started.process.send_signal(number)
                started.process.wait()
            assert not (folder / RESULT).exists()
            assert run("training", "train", *resume(folder)).returncode == 3
        result = json.loads((folder / RESULT).read_text())
        assert result["env_steps"] >= 20_000
        for own in ("seconds", "run_dir"):
            del result[own]
        outcomes.append((result, (folder / "metrics.csv").read_bytes()))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.long
def test_an_unsolved_run_goes_on_with_a_larger_budget(tmp_path: Path) -> None:
    options = ("--models", f"{tmp_path}/models", "--run-dir", f"{tmp_path}/run", "--json")
    finished = run("training", "train", *options, "--max-env-steps", "3000")
    assert finished.returncode == 3
    first = json.loads(finished.stdout)
    again = ("training", "train", *resume(tmp_path / "run"), "--json")
    assert "has ended" in run(*again).stderr
    assert "is not more than the 3000" in run(*again, "--max-env-steps", "3000").stderr
    finished = run(*again, "--max-env-steps", "200000")
    assert finished.returncode == 0, finished.stderr
    second = json.loads(finished.stdout)
    assert second["solved"]
    assert second["env_steps"] > first["env_steps"] > 3_000
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(i + 1) for i in range(len(rows))]
    finished = run(*again, "--max-env-steps", "300000")
    assert finished.returncode == 2
    assert "it is solved" in finished.stderr
