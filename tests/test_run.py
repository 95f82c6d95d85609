"""A run that is stopped continues as if it had not been, and its folder tells all of it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ENVIRONMENT, ROOT
from tests.runs import SMALL, Silent, new_run, small_settings
from training.checkpoint import FORMAT, CheckpointError
from training.config import TrainingConfig
from training.files import write_json
from training.folder import RunError, claim, read_settings
from training.metrics import MetricsFile
from training.presets import PRESETS, Preset
from training.run import train
from training.state import Progress, TrainingResult
from training.trainer import Trainer


class KilledError(Exception):
    """Ends a run in this process where SIGKILL would: without another checkpoint."""


def to_the_end(config: TrainingConfig, folder: Path) -> tuple[Trainer, TrainingResult]:
    trainer = Trainer(config, seed=0)
    train(trainer, folder, Silent(), stop_requested=lambda: False)
    assert trainer.state.result is not None
    return trainer, trainer.state.result


def killed_after(config: TrainingConfig, folder: Path, update: int) -> None:
    class Killing(Silent):
        def update(self, progress: Progress, max_env_steps: int) -> None:  # noqa: ARG002  # of the interface
            if progress.update == update:
                raise KilledError

    with pytest.raises(KilledError):
        train(Trainer(config, seed=0), folder, Killing(), stop_requested=lambda: False)


def stopped_after(config: TrainingConfig, folder: Path, update: int) -> None:
    trainer = Trainer(config, seed=0)
    train(trainer, folder, Silent(), stop_requested=lambda: trainer.state.update == update)
    assert trainer.state.result is None


def weights(trainer: Trainer, result: TrainingResult) -> list[np.ndarray]:
    """Those learned last, the state of Adam, and those chosen as the best."""
    learned = [variable.numpy() for variable in trainer.learner.state]
    return [*learned, *tf.nest.flatten(result.policy.weights)]


@pytest.mark.parametrize(
    ("preset", "changes", "stops"),
    [
        # until it is solved, by a policy that need be neither the first nor the last to pass
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
        pytest.param(
            "ppo",  # with all that normalisation adds to the state
            {
                "normalize_observations": True,
                "scale_rewards": True,
                "max_env_steps": 20_000,
                "checkpoint_interval": 4,
                "evaluation_episodes": 5,
            },
            3,
            marks=pytest.mark.long,
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
    updates = rng.permutation(np.arange(1, expected_trainer.state.update))
    for update in np.sort(updates[:stops]).tolist():
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


def test_a_run_goes_on_in_a_folder_whose_name_would_be_a_pattern(tmp_path: Path) -> None:
    config, folder = dataclasses.replace(SMALL, max_env_steps=1_000), tmp_path / "q[ab]*"
    folder.mkdir()
    stopped_after(config, folder, 9)
    trainer = Trainer(config, seed=0)
    train(trainer, folder, Silent(), lambda: trainer.state.update == 10)
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 10


def test_a_stop_right_after_a_checkpoint_does_not_write_over_it(tmp_path: Path) -> None:
    # A kill while the only checkpoint is written over would leave none.
    config = dataclasses.replace(SMALL, max_env_steps=1_000)
    stopped_after(config, tmp_path, config.checkpoint_interval)
    (index,) = (tmp_path / "checkpoints").glob("*.index")
    before = index.stat().st_mtime_ns
    stopped_after(config, tmp_path, config.checkpoint_interval)
    assert index.stat().st_mtime_ns == before


@pytest.mark.parametrize("interval", [1, 7])  # saved within the run, and where it stops
def test_a_checkpoint_and_its_rows_are_synced_before_it_is_named_the_latest(
    interval: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crash of the machine could else leave a latest checkpoint that is an empty file.
    checkpoints = tmp_path / "checkpoints"
    before: dict[int, int] = {}  # inode to size: metrics.csv is synced without its row too
    after: dict[int, int] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        named = tf.train.latest_checkpoint(checkpoints) is not None
        stat = os.fstat(descriptor)
        (after if named else before)[stat.st_ino] = stat.st_size
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    stopped_after(dataclasses.replace(SMALL, checkpoint_interval=interval), tmp_path, 1)
    files = [*checkpoints.glob("update-1.*"), tmp_path / "metrics.csv"]
    assert len(files) == 3
    for path in files:
        assert before.get(path.stat().st_ino) == path.stat().st_size, path
    assert checkpoints.stat().st_ino in before
    assert {path.stat().st_ino for path in (checkpoints, checkpoints / "checkpoint")} <= {*after}


def test_a_runs_settings_are_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        assert synced == [self.stat().st_ino]
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_json(tmp_path / "run.json", {})
    assert synced[1:] == [tmp_path.stat().st_ino]


def test_the_rows_that_a_resumed_run_keeps_are_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crash of the machine could else leave a checkpoint of 7 updates beside no row at all.
    stopped_after(SMALL, tmp_path, 7)
    rows = (tmp_path / "metrics.csv").read_bytes()
    synced: list[int] = []
    replaced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        assert self.read_bytes() == rows
        assert synced == [self.stat().st_ino]
        replaced.append(self.stat().st_ino)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with MetricsFile(tmp_path / "metrics.csv", 7):
        pass
    assert synced == [*replaced, tmp_path.stat().st_ino]
    assert (tmp_path / "metrics.csv").read_bytes() == rows


def test_a_run_can_be_resumed_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    claim(Path("run"), small_settings(Path("models")))
    assert read_settings(Path("run")).models == str(tmp_path / "models" / "novice")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"preset": "ppo", "seed": 0, "config": {"env_id": "A"}}']
)
def test_half_of_a_runs_settings_are_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match="holds no run to resume"):
        read_settings(tmp_path)


def test_a_new_run_needs_an_empty_folder(tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    with pytest.raises(RunError, match=r"run is not empty: --resume continues"):
        claim(folder, small_settings(models))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    stopped_after(SMALL, tmp_path, 1)
    for path in (tmp_path / "checkpoints").glob("*.data-*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="checkpoint 1 cannot be restored: "):
        to_the_end(SMALL, tmp_path)


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
    assert stored["config"] == json.loads(json.dumps(dataclasses.asdict(config)))
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
    assert rows[-1].startswith(f"{len(rows) - 1},{result['env_steps']},{result['episodes']},")
    for picture in ("learning_curve.png", "episode.gif"):
        exported = tmp_path / result["model_dir"] / "assets.extra" / picture
        assert exported.read_bytes() == (folder / picture).read_bytes()


def test_a_checkpoint_of_another_format_is_refused_whatever_its_variables_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("training.checkpoint.FORMAT", 2)
        stopped_after(dataclasses.replace(SMALL, hidden_units=(3,)), tmp_path, 1)
    with pytest.raises(CheckpointError, match=f"it has format 2, this program reads {FORMAT}"):
        stopped_after(SMALL, tmp_path, 2)
