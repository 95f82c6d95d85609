"""One run in its folder: train, checkpoint, record; stop and resume at any time."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from training.card import evaluation_to_json, policy_card
from training.checkpoint import Checkpoints
from training.config import RunSettings
from training.export import export
from training.files import plain_path, write_json
from training.folder import RunError
from training.metrics import EventWriter, MetricsFile, read_metrics
from training.model import Policy
from training.pictures import draw_learning_curve, record_episode
from training.reporting import progress_reporter
from training.trainer import Progress, Trainer


def run(
    settings: RunSettings, folder: Path, stop_requested: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train in a claimed folder, from its latest checkpoint if any; export if solved.

    Args:
        settings: of the run; for a folder that is resumed, those read from it.
        folder: of the run.
        stop_requested: asked after every update.

    Returns:
        The run's result in JSON values, or None if it was asked to stop.

    Raises:
        RunError: the folder's checkpoint cannot be restored.
    """
    config = settings.config
    trainer = Trainer(config, settings.seed)
    with progress_reporter(config.max_env_steps) as report:
        train(trainer, folder, report, stop_requested)
    state = trainer.state
    if state.result is None:
        return None
    policy, solved, greedy, sampled = state.result
    pictures = draw_pictures(trainer, policy, settings, folder)
    model_dir = exported_before(settings)
    if model_dir is None and (solved or settings.allow_unsolved):
        card = policy_card(settings, trainer, state.result)
        model_dir = export(Path(settings.models), policy, card, state.sample_observations, pictures)
    summary = {
        "solved": solved,
        "model_dir": None if model_dir is None else str(model_dir),
        "run_dir": str(folder),
        "environment": config.env_id,
        "preset": settings.preset,
        "seed": settings.seed,
        "env_steps": state.env_steps,
        "episodes": state.episodes,
        "seconds": round(state.seconds, 3),
        "reward_threshold": trainer.reward_threshold,
        "greedy": evaluation_to_json(greedy),
        "sampled": evaluation_to_json(sampled),
    }
    write_json(folder / "result.json", summary)
    return summary


def draw_pictures(
    trainer: Trainer, policy: Policy, settings: RunSettings, folder: Path
) -> dict[str, Path]:
    """Draw the learning curve and record an episode in the run's folder.

    Returns:
        The pictures by their names. One that cannot be drawn does not prevent the export.
    """
    pictures: dict[str, Path] = {}
    try:
        path = folder / "learning_curve.png"
        draw_learning_curve(read_metrics(folder / "metrics.csv"), trainer.reward_threshold, path)
        pictures[path.name] = path
        path = folder / "episode.gif"
        record_episode(policy, settings.config.env_id, settings.seed, path)
        pictures[path.name] = path
    # Rendering is the environment's own code, and not every environment can.
    except Exception as error:
        click.echo(f"a picture could not be drawn: {error}", err=True)
    return pictures


def exported_before(settings: RunSettings) -> Path | None:
    """The version that this run has already exported, if it was killed right after that."""
    for card in Path(settings.models).glob("[0-9]*/assets.extra/policy.json"):
        with contextlib.suppress(OSError):  # it is another run's, and may be anything
            if settings.run_id.encode() in card.read_bytes():
                return card.parent.parent
    return None


def train(
    trainer: Trainer,
    folder: Path,
    report: Callable[[Progress], None],
    stop_requested: Callable[[], bool],
) -> None:
    """Resume from the latest checkpoint in the folder; train to the end or until asked to stop.

    Raises:
        RunError: the checkpoint cannot be restored.
    """
    with contextlib.ExitStack() as opened:
        checkpoints = Checkpoints(opened.enter_context(plain_path(folder)) / "checkpoints", trainer)
        try:
            checkpoints.restore()
        # A damaged file can raise in TensorFlow, in pickle or in what is unpickled.
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(f"the checkpoint in {folder} cannot be restored: {reason}") from error
        state = trainer.state
        metrics = opened.enter_context(MetricsFile(folder / "metrics.csv", state.update))
        events = opened.enter_context(EventWriter(folder))
        while state.result is None and not stop_requested():
            progress = trainer.step()
            metrics.write(progress)
            events.write(progress)
            report(progress)
            if progress.update % trainer.config.checkpoint_interval == 0:
                # The rows first: a resumed run keeps those before its checkpoint.
                metrics.flush()
                checkpoints.save()
        metrics.flush()
        checkpoints.save()
