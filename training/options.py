"""What the commands share: options, checks, and the error that reports wrong use."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from training.config import PRESETS


class Mistake(click.ClickException):
    """Wrong use: one line on standard error and exit status 2."""

    exit_code = 2


preset_option = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="ppo",
    help="Algorithm and hyperparameters.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)


def require_writable(folder: Path) -> None:
    """Make the folder and check that it is writable now, rather than after the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Mistake(f"{folder} cannot be written: {error.strerror}") from error


@contextmanager
def many_imports() -> Iterator[None]:
    """Import TensorFlow with garbage collection off, which takes a quarter of the import."""
    gc.disable()
    yield
    gc.freeze()  # imported objects stay alive: later collections need not scan them
    gc.enable()


def print_evaluations(summary: dict[str, Any]) -> None:
    """Print both evaluations of a summary, one line each."""
    for kind in ("greedy", "sampled"):
        evaluation = summary[kind]
        low, high = evaluation["confidence_interval"]
        is_approximate = evaluation["interval_method"] == "bootstrap"
        click.echo(
            f"{kind:7} mean return {evaluation['mean']:.1f} "
            f"(95% {'about ' if is_approximate else ''}{low:.1f} to {high:.1f}), "
            f"minimum {evaluation['minimum']:.0f}, {evaluation['episodes']} episodes"
        )
