"""What the commands share: options, checks, and the error that reports wrong use."""

import gc
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.config import Environment, TrainingConfig
from training.errors import TrainingError
from training.presets import PRESETS

if TYPE_CHECKING:
    from training.envs import Description


class Mistake(click.ClickException):
    """An error that is reported in one line, with an exit status: 2 for wrong use."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable of click


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Report errors of training in one line, with their exit status."""
    try:
        yield
    except TrainingError as error:
        raise Mistake(str(error), error.exit_status) from error


preset_option = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="ppo",
    help="Algorithm and hyperparameters.",
)


def ray_address(
    _context: click.Context, _parameter: click.Parameter, address: str | None
) -> str | None:
    """Check the form of an address, if one is given."""
    if address not in (None, "local") and not re.fullmatch(r"[^\s:/]+:\d{1,5}", address):
        raise click.BadParameter("HOST:PORT or local, such as 10.0.0.1:6379")
    return address


env_workers_option = click.option(
    "--env-workers",
    type=click.IntRange(min=0),
    default=0,
    help="Workers to step the environments in, where Gymnasium has no vectorised implementation of "
    "them: processes, or with --ray its actors; 0 for none, with --ray one per processor. The "
    "results are the same.",
)
ray_option = click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    callback=ray_address,
    help="Ray cluster to work on, as HOST:PORT, or `local` for one on this machine.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)


def plain_name(
    _context: click.Context, _parameter: click.Parameter, name: str | None
) -> str | None:
    """Check a name that becomes part of a path, if one is given."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise click.BadParameter("letters, digits, '_', '-' and '.' only, no '.' in front")
    return name


allow_module_option = click.option(
    "--allow-module",
    "allowed_modules",
    multiple=True,
    metavar="MODULE",
    help="Module that may be imported because the card of a version names it; can be repeated.",
)


def require_allowed(environment: Environment, allowed: Iterable[str]) -> None:
    """Check that the user has named every module that an environment on a card would import.

    Otherwise, whoever can write a card could run any code.

    Raises:
        Mistake: neither the module nor a package that contains it is allowed.
    """
    for module in environment.modules():
        if not any(module == one or module.startswith(f"{one}.") for one in allowed):
            raise Mistake(
                f"the card names the module {module}, which is imported only with "
                f"--allow-module {shlex.quote(module)}"
            )


def require_environment(config: TrainingConfig) -> "Description":
    """Check that the environment can be made and that its names fit, and describe it.

    Raises:
        ConfigError: there are more or fewer names, or it is to be pushed but cannot be.
        ModuleNotFoundError: TensorFlow is missing, which is imported only after folders are made.
        UnsupportedEnvironmentError: see `training.envs`.
    """
    from training.names import describe_with_names
    from training.pushes import require_pushable

    if find_spec("tensorflow") is None:
        raise ModuleNotFoundError(name="tensorflow")
    require_pushable(config)

    return describe_with_names(config.environment, config.observation_names, config.action_names)


def require_writable(folder: Path) -> None:
    """Make the folder and check that it is writable now, rather than after the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Mistake(f"{folder} cannot be written: {error.strerror}") from error


def require_kept(target: Path, *inputs: Path | None) -> None:
    """Refuse to write results over a file that the command reads."""
    for one in inputs:
        if one is not None and target.resolve() == one.resolve():
            raise Mistake(f"the results would overwrite {one}: give another --output")


@contextmanager
def many_imports() -> Iterator[None]:
    """Turn garbage collection off: it would take a quarter of the import of TensorFlow."""
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
            f"{kind:7} mean return {_short(evaluation['mean'])} "
            f"(95% {'about ' if is_approximate else ''}{_short(low)} to {_short(high)}), "
            f"minimum {evaluation['minimum']:g}, {evaluation['episodes']} episodes"
        )


def _short(number: float) -> str:
    """One decimal place, or three for numbers between -1 and 1."""
    return f"{number:.1f}" if abs(number) >= 1 else f"{number:.3f}"
