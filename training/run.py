"""One run in its folder: train, checkpoint, record; stop and resume at any time."""

import contextlib
import errno
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import click
import numpy as np
import tensorflow as tf

from training.artefact import ArtefactError, load
from training.card import Seen, evaluation_to_json, policy_card, training_section
from training.checkpoint import FOLDER as CHECKPOINTS
from training.checkpoint import Checkpoints
from training.config import RunSettings
from training.errors import StopRequestedError, StorageError, first_line
from training.evaluation import Evaluation
from training.files import CARD, plain_path, write_json
from training.folder import RESULT
from training.metrics import EventWriter, MetricsFile, read_metrics
from training.model import Policy
from training.normalization import Moments, no_samples
from training.pictures import Pictures
from training.reporting import Display
from training.robustness import robustness
from training.savedmodel import network_of
from training.shares import Workers
from training.state import Start, TrainingResult
from training.trainer import Trainer
from training.writing import golden_values, write_version

# A disk that is full, over its quota, read-only or broken, or a folder without access.
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
}


class UnexpectedError(Exception):
    """Training or an episode has raised an error that does not concern the run's files."""


@contextlib.contextmanager
def _not_of_storage() -> Iterator[None]:
    """Keep an environment's file errors from being taken for errors of the run's files."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise UnexpectedError(f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _errors_of_storage(folder: Path) -> Iterator[None]:
    """Raise `StorageError` if a run's files cannot be written; those that were are kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise  # not about the disk
        where = error.filename or folder
        raise StorageError(f"{where} cannot be written: {error.strerror or error}") from error
    except tf.errors.OpError as error:
        raise StorageError(f"{folder} cannot be written: {first_line(error)}") from error


def run(
    settings: RunSettings,
    folder: Path,
    display: Display,
    stop_requested: Callable[[], bool],
    drawing: Executor,
    *,
    workers: Workers | None = None,
    with_environments: bool = True,
) -> dict[str, Any] | None:
    """Train in a locked folder, from its latest checkpoint if any; export if solved.

    Args:
        settings: of the run; for a folder that is resumed, those read from it.
        folder: of the run.
        display: shows what is done.
        stop_requested: called after every update, and before every step of an evaluation.
        drawing: a process that draws the pictures, see `training.processes`.
        workers: what steps the environments, if not this process.
        with_environments: whether checkpoints can hold them, see `training.storing`.

    Returns:
        The run's result in JSON values, or None if it was asked to stop.

    Raises:
        TrainingError: of many kinds, such as that no checkpoint can be restored.
    """
    with _errors_of_storage(folder):
        display.phase("compiling")
        config = settings.config
        pictures = Pictures(drawing, config.environment, settings.seed, folder)
        start = _start(settings, folder)
        with _not_of_storage():
            trainer = Trainer(
                config,
                settings.seed,
                start,
                workers=workers,
                stop_requested=stop_requested,
                announce=display.phase,
                found=pictures.record,
            )
        try:
            with contextlib.closing(trainer):
                result = train(
                    trainer,
                    folder,
                    display,
                    stop_requested,
                    with_environments=with_environments,
                )
            if result is None:
                return None
            display.phase("testing robustness")
            pictures.record(result.policy)
            pictures.draw_curve(read_metrics(folder / "metrics.csv"), trainer.reward_threshold)
            with _not_of_storage():
                tested = robustness(
                    result.policy, config.environment, stop_requested, result.endurance
                )
        except StopRequestedError:
            return None

        state = trainer.state
        model_dir = exported_before(settings, state.env_steps)
        if model_dir is None and (result.solved or settings.allow_unsolved):
            display.phase("exporting")
            model_dir = _export(settings, trainer, result, tested, pictures)
        else:
            pictures.wait()
        summary = {
            "solved": result.solved,
            "model_dir": None if model_dir is None else str(model_dir),
            "run_dir": str(folder),
            "environment": config.env_id,
            "preset": settings.preset,
            "seed": settings.seed,
            "env_steps": state.env_steps,
            "evaluation_steps": state.evaluation_steps,
            "episodes": state.episodes,
            "seconds": round(state.seconds, 3),
            "reward_threshold": trainer.reward_threshold,
            "greedy": evaluation_to_json(result.greedy),
            "sampled": evaluation_to_json(result.sampled),
        }
        write_json(folder / RESULT, summary)
        display.finish()
        return summary


def _start(settings: RunSettings, folder: Path) -> Start | None:
    """The version's state that a run starts from, if it has one and no checkpoint yet."""
    version = settings.start_from
    if version is None or any(folder.glob(f"{CHECKPOINTS}/*.index")):
        return None
    loaded = load(Path(version))
    policy = loaded.policy
    if not isinstance(policy, Policy) or loaded.training is None:
        raise ArtefactError(f"{version} is not a policy that was trained here")
    moments = no_samples(policy.observation_size)
    if policy.normalization is not None:
        mean, scale = (array.astype(np.float64) for array in policy.normalization)
        moments = Moments(float(loaded.training["env_steps"]), mean, 1 / scale**2)
    return Start(policy.weights, moments)


def exported_before(settings: RunSettings, env_steps: int) -> Path | None:
    """The version that this run has already exported, if it was killed right after that.

    A run whose budget became larger exports one for each budget.
    """
    for path in Path(settings.models).glob(f"[0-9]*/{CARD}"):
        # It may be another run's, and contain anything.
        with contextlib.suppress(OSError, LookupError, TypeError, ValueError, RecursionError):
            training = json.loads(path.read_bytes())["training"]
            if (training["run_id"], training["env_steps"]) == (settings.run_id, env_steps):
                return path.parent.parent
    return None


def _export(
    settings: RunSettings,
    trainer: Trainer,
    result: TrainingResult,
    tested: dict[str, Evaluation],
    pictures: Pictures,
) -> Path:
    """Write the policy that a run chose as the next version; return its folder."""
    config, state = settings.config, trainer.state
    card = policy_card(
        config.environment,
        trainer.described,
        Seen(state.observation_low, state.observation_high),
        reward_threshold=trainer.reward_threshold,
        return_bounds=config.return_bounds,
        solved=result.solved,
        evaluation={"greedy": result.greedy, "sampled": result.sampled},
        robustness=tested,
        training=training_section(settings, state),
    )
    golden = golden_values(result.policy, state.sample_observations)
    network = network_of(result.policy)
    try:
        return write_version(Path(settings.models), network, card, golden, pictures.wait)
    except (OSError, tf.errors.OpError) as error:  # not all of these name the folder
        reason = first_line(error)
        raise StorageError(f"{settings.models} cannot be written: {reason}") from error


def train(
    trainer: Trainer,
    folder: Path,
    display: Display,
    stop_requested: Callable[[], bool],
    *,
    with_environments: bool = True,
) -> TrainingResult | None:
    """Resume from the latest checkpoint in the folder; train to the end or until asked to stop.

    Returns:
        The result, or None if it was asked to stop.

    Raises:
        TrainingError: of many kinds. What was stored of the run is kept.
        OSError, tf.errors.OpError: a file cannot be written.
        UnexpectedError: the environment has raised one of these.
    """
    with contextlib.ExitStack() as opened:
        checkpoints = Checkpoints(
            opened.enter_context(plain_path(folder)) / CHECKPOINTS,
            trainer,
            with_environments=with_environments,
        )
        for message in checkpoints.restore():
            click.echo(f"{folder}: {message}; the one before it is used", err=True)
        trainer.extend()
        state = trainer.state
        rows = state.update - (state.unevaluated is not None)
        metrics = opened.enter_context(MetricsFile(folder / "metrics.csv", rows))
        events = opened.enter_context(EventWriter(folder))
        display.phase("training")
        while state.result is None and not stop_requested():
            try:
                with _not_of_storage():
                    progress = trainer.step()
            except StopRequestedError:
                break
            metrics.write(progress)
            events.write(progress)
            display.update(progress, trainer.config.max_env_steps)
            if progress.update % trainer.config.checkpoint_interval == 0:
                # The rows first: a resumed run needs all those up to its checkpoint.
                metrics.flush()
                checkpoints.save()
        metrics.flush()
        checkpoints.save()
        return state.result
