"""The command line and its first command: options become a config, mistakes one clear line."""

import dataclasses
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import uuid
from pathlib import Path

import click
from click.core import ParameterSource

import training
from training.commands import benchmark, evaluate, render, sign
from training.config import PRESETS, Preset, RunSettings
from training.envs import UnsupportedEnvironmentError, make_vector_env, reward_threshold
from training.evaluation import ReturnBoundsError
from training.folder import RunError, claim, claim_next, read_settings
from training.options import (
    Mistake,
    json_option,
    many_imports,
    preset_option,
    print_evaluations,
    require_writable,
)
from training.versions import newest_solved

NOT_SOLVED = 3


@click.group(
    no_args_is_help=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(
    training.__version__, prog_name="actor-critic", message="%(prog)s %(version)s"
)
def commands() -> None:
    """Learn a policy on a Gymnasium environment and export it for serving."""
    # Before TensorFlow is imported. We use no Keras: choosing the legacy one, which is not
    # installed, skips the import of Keras 3, a fifth of TensorFlow's start-up.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Silence the banners and notices of these libraries.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


for command in (evaluate, render, benchmark, sign):
    commands.add_command(command)


def main() -> None:
    """Run the command line and exit with its status; 130 after Ctrl-C."""
    try:
        sys.exit(commands.main(standalone_mode=False))
    except click.ClickException as mistake:
        # Not by click itself: its usage lines would bury the error.
        click.echo(f"Error: {mistake.format_message()}", err=True)
        sys.exit(mistake.exit_code)
    except click.Abort:
        sys.exit(128 + signal.SIGINT)


def _model_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise click.BadParameter("letters, digits, '_', '-' and '.' only, no '.' in front")
    return name


@commands.command()
@click.option(
    "--models",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    help="Folder that holds <name>/<version>/.",
)
@click.option("--name", default="cartpole", callback=_model_name, help="Name of the model.")
@preset_option
@click.option("--env-id", help="Gymnasium environment.  [default: the preset's]")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Makes a run reproducible.")
@click.option(
    "--max-env-steps",
    type=click.IntRange(min=1),
    help="Stop after this many environment steps.  [default: the preset's]",
)
@click.option(
    "--return-bounds",
    type=(float, float),
    metavar="LOW HIGH",
    help="Lowest and highest possible return of an episode, for the confidence intervals."
    "  [default: the preset's for its own environment]",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run: metrics, checkpoints, pictures.  [default: runs/<name>/<next number>]",
)
@click.option("--resume", is_flag=True, help="Resume the stopped run in --run-dir.")
@click.option("--allow-unsolved", is_flag=True, help="Export the policy even if it is not solved.")
@click.option(
    "--if-missing",
    is_flag=True,
    help="Train only if no version in DIR/<name> is solved with all its files as exported.",
)
@json_option
@click.pass_context
def train(
    context: click.Context,
    models: Path,
    name: str,
    preset: Preset,
    env_id: str | None,
    seed: int,
    max_env_steps: int | None,
    return_bounds: tuple[float, float] | None,
    run_dir: Path | None,
    resume: bool,
    allow_unsolved: bool,
    if_missing: bool,
    as_json: bool,
) -> None:
    """Train until solved with a margin, then export DIR/<name>/<next version>.

    Exit status: 0 exported, because solved or --allow-unsolved, or there already and --if-missing;
    2 wrong use; 3 not solved and nothing exported; 143 after SIGTERM and 130 after Ctrl-C, with a
    checkpoint to --resume from.
    """
    if if_missing and not resume and (existing := newest_solved(models / name)) is not None:
        _report_existing(existing, as_json)
        return
    if resume:
        settings = _settings_to_resume(context, run_dir)
    else:
        config = PRESETS[preset]
        if env_id is not None and env_id != config.env_id:
            # These are of the preset's own environment.
            config = dataclasses.replace(
                config, env_id=env_id, endurance_steps=None, return_bounds=None
            )
        if max_env_steps is not None:
            config = dataclasses.replace(config, max_env_steps=max_env_steps)
        if return_bounds is not None:
            low, high = return_bounds
            if not (low < high and math.isfinite(high - low)):
                raise Mistake("--return-bounds are two numbers, the smaller one first")
            config = dataclasses.replace(config, return_bounds=return_bounds)
        settings = RunSettings(
            uuid.uuid4().hex, config, preset, seed, str(models / name), allow_unsolved
        )
    # Report mistakes before importing TensorFlow, which takes seconds.
    _require_solvable(settings.config.env_id, settings.allow_unsolved)
    require_writable(Path(settings.models))
    received = _note_signals()
    try:
        if run_dir is None:
            run_dir = claim_next(Path("runs") / name, settings)
        elif not resume:
            claim(run_dir, settings)
        # At once, so that a run that is killed can be found.
        click.echo(f"training in {run_dir}", err=True)
        with many_imports():
            from training import run
        summary = run.run(settings, run_dir, stop_requested=lambda: bool(received))
    except (RunError, ReturnBoundsError) as error:
        raise Mistake(str(error)) from error
    if summary is None:
        options = f"--resume --run-dir {shlex.quote(str(run_dir))}"
        click.echo(f"stopped, resume with: {options}", err=True)
        sys.exit(128 + received[0])
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo("solved" if summary["solved"] else "not solved")
        print_evaluations(summary)
        click.echo(
            f"{summary['env_steps']} steps, {summary['episodes']} episodes, "
            f"{summary['seconds']:.1f} s"
        )
        click.echo(f"run in {run_dir}")
        exported = summary["model_dir"]
        click.echo("nothing exported" if exported is None else f"exported {exported}")
    if summary["model_dir"] is None:
        sys.exit(NOT_SOLVED)


def _settings_to_resume(context: click.Context, run_dir: Path | None) -> RunSettings:
    if run_dir is None:
        raise Mistake("--resume needs the --run-dir of the run")
    for parameter in context.params.keys() - {"run_dir", "resume", "as_json"}:
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            option = f"--{parameter.replace('_', '-')}"
            raise Mistake(f"--resume keeps the settings of the run: {option} cannot be given")
    try:
        return read_settings(run_dir)
    except RunError as error:
        raise Mistake(str(error)) from error


def _report_existing(version: Path, as_json: bool) -> None:
    """Say that nothing was trained, and how to train all the same."""
    if as_json:
        click.echo(json.dumps({"solved": True, "model_dir": str(version)}))
        return
    click.echo(
        f"{version} is there and solved: not training again, which `train` without --if-missing "
        "does (docker compose run --rm train train)"
    )


def _require_solvable(env_id: str, allow_unsolved: bool) -> None:
    try:
        env = make_vector_env(env_id, 1)
    except UnsupportedEnvironmentError as error:
        raise Mistake(str(error)) from error
    env.close()
    if reward_threshold(env) is None and not allow_unsolved:
        raise Mistake(f"{env_id} has no reward threshold to reach: --allow-unsolved is needed")


def _note_signals() -> list[int]:
    """Record SIGTERM and the first Ctrl-C in a list; a second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return received
