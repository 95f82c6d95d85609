"""A run that is short enough to be stopped again and again."""

import dataclasses
from contextlib import closing
from pathlib import Path

from training.config import RunSettings, TrainingConfig
from training.folder import claim, locked
from training.presets import PRESETS
from training.run import train
from training.shares import Workers
from training.state import Progress, TrainingResult
from training.trainer import Trainer

# Some 400 updates, in seconds; far too few samples to be solved.
SMALL = dataclasses.replace(
    PRESETS["ppo"],
    num_envs=4,
    num_steps=16,
    num_epochs=2,
    num_minibatches=2,
    hidden_units=(8,),
    learning_rate=1e-3,
    evaluation_interval=2,
    evaluation_episodes=3,
    checkpoint_interval=7,
    max_env_steps=25_000,
)


class Silent:
    """A display of a run that nobody watches."""

    def phase(self, name: str) -> None: ...

    def update(self, progress: Progress, max_env_steps: int) -> None: ...

    def finish(self) -> None: ...


def with_units(*hidden_units: int) -> TrainingConfig:
    """The default preset with hidden layers of these widths."""
    return dataclasses.replace(PRESETS["ppo"], hidden_units=hidden_units)


def small_settings(models: Path) -> RunSettings:
    """What a run of `SMALL` is that exports `models/novice/1`."""
    return RunSettings("a run", SMALL, "ppo", 7, str(models / "novice"), allow_unsolved=True)


def new_run(folder: Path) -> tuple[Path, Path]:
    """The folder of a run of `SMALL` that has not begun, and the models' folder beside it."""
    models = folder / "some models"
    with locked(folder / "run"):
        claim(folder / "run", small_settings(models))
    return folder / "run", models


def resume(folder: Path) -> list[str]:
    """The options to continue with a run."""
    return ["--resume", "--run-dir", str(folder)]


def run_trainer(
    config: TrainingConfig, seed: int = 0
) -> tuple[Trainer, TrainingResult, list[Progress]]:
    """Train until there is a result; what every step reported."""
    trainer = Trainer(config, seed)
    reports = []
    while trainer.state.result is None:
        reports.append(trainer.step())
    return trainer, trainer.state.result, reports


def train_in(
    config: TrainingConfig,
    folder: Path,
    workers: Workers | None,
    *,
    stop_after: int | None = None,
) -> Trainer:
    """Train in a folder until the end or for so many updates, or continue there."""
    folder.mkdir(exist_ok=True)
    trainer = Trainer(config, seed=0, workers=workers)
    with closing(trainer):
        train(
            trainer,
            folder,
            Silent(),
            stop_requested=lambda: trainer.state.update == stop_after,
        )
    return trainer
