"""A run stops at any moment and goes on as if it had not, and its folder tells all of it."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ENVIRONMENT, ROOT
from tests.conftest import run as run_command
from training.config import PRESETS, Preset, RunSettings, TrainingConfig
from training.run import RunError, claim, read_settings, train
from training.trainer import Progress, Trainer, TrainingResult

# Some 400 updates, in seconds; far too few samples to be solved.
SMALL = dataclasses.replace(
    PRESETS["ppo"],
    num_envs=4,
    num_steps=16,
    num_epochs=2,
    num_minibatches=2,
    hidden_units=8,
    learning_rate=1e-3,
    evaluation_interval=3,
    evaluation_episodes=3,
    checkpoint_interval=7,
    max_env_steps=25_000,
)
PATIENCE_SECONDS = 120


class KilledError(Exception):
    """Ends a run in this process where SIGKILL would: without another checkpoint."""


def to_the_end(config: TrainingConfig, folder: Path) -> tuple[Trainer, TrainingResult]:
    trainer = Trainer(config, seed=0)
    train(trainer, folder, report=lambda _: None, stop_requested=lambda: False)
    assert trainer.state.result is not None
    return trainer, trainer.state.result


def killed_after(config: TrainingConfig, folder: Path, update: int) -> None:
    def kill(progress: Progress) -> None:
        if progress.update == update:
            raise KilledError

    with pytest.raises(KilledError):
        train(Trainer(config, seed=0), folder, report=kill, stop_requested=lambda: False)


def stopped_after(config: TrainingConfig, folder: Path, update: int) -> None:
    trainer = Trainer(config, seed=0)
    train(
        trainer,
        folder,
        report=lambda _: None,
        stop_requested=lambda: trainer.state.update == update,
    )
    assert trainer.state.result is None


def weights(trainer: Trainer, result: TrainingResult) -> list[np.ndarray]:
    """Those learned last, the state of Adam, and those chosen as the best."""
    learned = [variable.numpy() for variable in trainer.learner.variables()]
    return [*learned, *tf.nest.flatten(result.policy.weights)]


@pytest.mark.parametrize(
    ("preset", "changes", "stops"),
    [
        # until it is solved, by a policy that is neither the first nor the last to pass
        ("ppo", {"checkpoint_interval": 4, "patience": 3}, 20),
        (
            "acrobot",  # its environments are single ones
            {
                "num_envs": 4,
                "max_env_steps": 2_000,
                "evaluation_interval": 3,
                "evaluation_episodes": 1,
                "checkpoint_interval": 2,
            },
            3,
        ),
        (
            "notebook",  # its rollouts are whole episodes
            {"max_episodes": 12, "evaluation_episodes": 2, "checkpoint_interval": 5},
            3,
        ),
    ],
)
def test_a_run_stopped_at_random_ends_with_the_weights_of_one_never_stopped(
    preset: Preset, changes: dict[str, Any], stops: int, tmp_path: Path
) -> None:
    config = dataclasses.replace(PRESETS[preset], **changes)
    expected_folder, folder = tmp_path / "never", tmp_path / "often"
    expected_folder.mkdir()
    folder.mkdir()
    expected_trainer, expected = to_the_end(config, expected_folder)

    rng = np.random.default_rng(0)
    updates = np.arange(1, expected_trainer.state.update)
    for update in np.sort(rng.choice(updates, stops, replace=False)).tolist():
        if rng.random() < 0.5:
            stopped_after(config, folder, update)
        else:
            killed_after(config, folder, update)
            # as if the kill had come in the middle of the next checkpoint
            following = update - update % config.checkpoint_interval + config.checkpoint_interval
            cut_short = folder / "checkpoints" / f"update-{following}.data-00000-of-00001"
            cut_short.parent.mkdir(exist_ok=True)
            cut_short.write_bytes(b"half")
    trainer, result = to_the_end(config, folder)

    for one, other in zip(
        weights(trainer, result), weights(expected_trainer, expected), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert result[1:] == expected[1:]  # solved, and the last evaluations
    for name in ("update", "env_steps", "episodes", "running_return"):
        assert getattr(trainer.state, name) == getattr(expected_trainer.state, name)
    assert (folder / "metrics.csv").read_bytes() == (expected_folder / "metrics.csv").read_bytes()


def test_a_run_stopped_before_its_first_update_goes_on(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, max_env_steps=300)
    stopped_after(config, tmp_path, 0)
    trainer, _ = to_the_end(config, tmp_path)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [
        str(update) for update in range(1, trainer.state.update + 1)
    ]


def test_a_stop_right_after_a_checkpoint_does_not_write_over_it(tmp_path: Path) -> None:
    # A kill while the only checkpoint is written over would leave none.
    config = dataclasses.replace(SMALL, max_env_steps=1_000)
    stopped_after(config, tmp_path, config.checkpoint_interval)
    (index,) = (tmp_path / "checkpoints").glob("*.index")
    before = index.stat().st_mtime_ns
    stopped_after(config, tmp_path, config.checkpoint_interval)
    assert index.stat().st_mtime_ns == before


@contextmanager
def training(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The real command, as long as it is looked at."""
    with subprocess.Popen(
        [sys.executable, "-m", "training", "train", *options],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def resume(folder: Path) -> list[str]:
    """The options to go on with a run."""
    return ["--resume", "--run-dir", str(folder)]


def to_its_end(options: list[str]) -> None:
    with training(*options) as process:
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_for_checkpoint(folder: Path, update: int, process: subprocess.Popen[str]) -> None:
    wait_for(lambda: last_checkpoint(folder) >= update, process)


def last_checkpoint(folder: Path) -> int:
    latest = tf.train.latest_checkpoint(folder / "checkpoints")
    return 0 if latest is None else int(latest.rpartition("-")[2])


def nothing_is_broken(folder: Path, models: Path) -> None:
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    for version in (models / "novice").iterdir():
        if version.name.isdecimal():
            assert (version / "saved_model.pb").stat().st_size > 0
            for path in (version / "assets.extra").iterdir():
                json.loads(path.read_text())


@dataclasses.dataclass
class Outcome:
    """All that a run leaves, without what depends on the clock."""

    weights: dict[str, list[float]]
    golden: bytes
    card: dict[str, Any]
    metrics: bytes

    def __init__(self, folder: Path, version: Path) -> None:
        stored = tf.train.load_checkpoint(version / "variables" / "variables")
        self.weights = {
            name: stored.get_tensor(name).flatten().tolist()
            for name, shape in stored.get_variable_to_shape_map().items()
            if shape
        }
        assert sum(map(len, self.weights.values())) == 4 * 8 + 8 + 8 * 2 + 2 + 8 * 1 + 1
        self.golden = (version / "assets.extra" / "golden.json").read_bytes()
        self.card = json.loads((version / "assets.extra" / "policy.json").read_text())
        self.card.pop("created")
        self.card["training"].pop("seconds")
        self.metrics = (folder / "metrics.csv").read_bytes()


def new_run(folder: Path) -> tuple[Path, Path]:
    """A run folder and the models' folder beside it; a run of `SMALL`, not yet begun."""
    models = folder / "some models"
    claim(folder / "run", RunSettings(SMALL, "ppo", 7, str(models / "novice"), allow_unsolved=True))
    return folder / "run", models


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder, models = new_run(tmp_path_factory.mktemp("never"))
    to_its_end(resume(folder))
    return Outcome(folder, models / "novice" / "1")


def test_sigkill_at_random_moments_changes_nothing(never_stopped: Outcome, tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    rng = np.random.default_rng(0)
    updates = never_stopped.metrics.count(b"\n") - 1
    for part in range(4):  # one in each of the first four eighths of the run
        moment = int(updates * rng.uniform(part, part + 1) / 8)
        with training(*resume(folder)) as process:
            wait_for_checkpoint(folder, moment, process)
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        nothing_is_broken(folder, models)
        assert not (folder / "result.json").exists()
    to_its_end(resume(folder))
    nothing_is_broken(folder, models)
    assert [path.name for path in (models / "novice").iterdir()] == ["1"]
    assert Outcome(folder, models / "novice" / "1") == never_stopped


def test_sigkill_while_exporting_leaves_no_broken_version(
    never_stopped: Outcome, tmp_path: Path
) -> None:
    folder, models = new_run(tmp_path)
    with training(*resume(folder)) as process:
        wait_for(lambda: list((models / "novice").glob(".writing-*")), process)
        process.kill()
    nothing_is_broken(folder, models)
    if not (folder / "result.json").exists():  # on a machine where the kill came late
        to_its_end(resume(folder))
    nothing_is_broken(folder, models)
    versions = [path for path in (models / "novice").iterdir() if path.name.isdecimal()]
    for version in versions:  # two, if the kill came between the export and the result
        assert Outcome(folder, version) == never_stopped
    assert versions


def test_a_signal_stops_with_a_checkpoint_to_go_on_from(
    never_stopped: Outcome, tmp_path: Path
) -> None:
    folder, models = new_run(tmp_path)
    for number, status in [(signal.SIGTERM, 143), (signal.SIGINT, 130)]:
        before = last_checkpoint(folder)
        with training(*resume(folder)) as process:
            wait_for_checkpoint(folder, before + 1, process)
            process.send_signal(number)
            printed, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == status, errors
        assert printed == ""
        _, _, options = errors.splitlines()[-1].partition("go on with: ")
        # nothing is lost: the checkpoint is of the last row
        rows = (folder / "metrics.csv").read_text().splitlines()
        assert int(rows[-1].split(",")[0]) == len(rows) - 1 == last_checkpoint(folder)
        nothing_is_broken(folder, models)
        assert list((models / "novice").iterdir()) == []
    # What it said is enough to go on, with the folder of models and all.
    to_its_end(shlex.split(options))
    assert Outcome(folder, models / "novice" / "1") == never_stopped


def error_of(*arguments: str) -> str:
    finished = run_command("training", "train", *arguments, timeout=PATIENCE_SECONDS)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    return finished.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", "7"), ("--preset", "ppo"), ("--name", "other")]
)
def test_a_resumed_run_keeps_its_settings(option: str, value: str, tmp_path: Path) -> None:
    folder, _ = new_run(tmp_path)
    message = error_of(*resume(folder), option, value)
    assert f"{option} cannot be given" in message


def test_resuming_needs_a_run_that_has_not_ended(tmp_path: Path) -> None:
    assert "--run-dir" in error_of("--resume")
    assert "holds no run" in error_of("--resume", "--run-dir", str(tmp_path / "nothing"))
    folder, _ = new_run(tmp_path)
    (folder / "result.json").write_text("{}")
    assert "has ended" in error_of("--resume", "--run-dir", str(folder))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"preset": "ppo", "seed": 0, "config": {"env_id": "A"}}']
)
def test_half_of_a_runs_settings_are_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match="holds no run to resume"):
        read_settings(tmp_path)


def test_a_new_run_needs_an_empty_folder(tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    message = error_of("--run-dir", str(folder), "--models", str(models))
    assert f"{folder} is not empty" in message
    assert "--resume" in message


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    folder, _ = new_run(tmp_path)
    stopped_after(SMALL, folder, 1)
    for path in (folder / "checkpoints").glob("*.data-*"):
        os.truncate(path, 100)
    assert "checkpoint" in error_of(*resume(folder))


def test_a_run_records_itself_in_the_next_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "runs" / "novice" / "3").mkdir(parents=True)
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "training", "train", "--name", "novice", "--seed", "5"),
            *("--max-env-steps", "1000", "--allow-unsolved", "--json"),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "runs" / "novice" / "4"
    (events,) = folder.glob("events.out.tfevents.*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "episode.gif",
        events.name,
        "learning_curve.png",
        "metrics.csv",
        "result.json",
        "run.json",
    ]

    stored = json.loads((folder / "run.json").read_text())
    assert (stored["preset"], stored["seed"]) == ("ppo", 5)
    config = dataclasses.replace(PRESETS["ppo"], max_env_steps=1_000)
    assert stored["config"] == dataclasses.asdict(config)
    assert stored["versions"]["tensorflow"] == tf.__version__
    assert stored["versions"]["gymnasium"] == gym.__version__
    assert stored["versions"]["numpy"] == np.__version__
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert stored["git_commit"] == (head.stdout.strip() if head.returncode == 0 else None)

    result = json.loads((folder / "result.json").read_text())
    assert result == json.loads(finished.stdout)
    assert result["run_dir"] == "runs/novice/4"
    assert result["model_dir"] == "models/novice/1"
    rows = (folder / "metrics.csv").read_text().splitlines()
    updates = len(rows) - 1  # below a header
    assert rows[-1].startswith(f"{updates},{result['env_steps']},{result['episodes']},")
