"""The command `train`: one run, from its options to its report."""

import json
import shlex
import sys
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from training.config import Environment, RunSettings, TrainingConfig
from training.config_options import (
    HyperparameterCommand,
    change,
    chosen_config,
    chosen_values,
    config_options,
)
from training.folder import claim, extend, locked, next_folder, read_settings, require_unfinished
from training.options import (
    Mistake,
    allow_module_option,
    env_workers_option,
    errors_in_one_line,
    json_option,
    many_imports,
    plain_name,
    preset_option,
    print_evaluations,
    ray_option,
    require_allowed,
    require_environment,
    require_writable,
)
from training.presets import Preset
from training.processes import drawing_process, note_signals
from training.reporting import progress_display
from training.versions import VersionError, newest_solved, read_config, read_sizes

NOT_SOLVED = 3
OF_THE_NETWORK = {"hidden_units", "activation", "trunk", "initializer", "normalize_observations"}


@click.command(cls=HyperparameterCommand)
@click.option(
    "--models",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    help="Folder that holds <name>/<version>/.",
)
@click.option("--name", default="cartpole", callback=plain_name, help="Name of the model.")
@preset_option
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Makes a run reproducible.")
@click.option(
    "--from",
    "start_from",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Version to continue from: its weights, and its hyperparameters in place of a preset's.",
)
@allow_module_option
@env_workers_option
@ray_option
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run: metrics, checkpoints, pictures.  [default: runs/<name>/<next number>]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume the stopped run in --run-dir, or with a larger --max-env-steps an unsolved one.",
)
@click.option("--allow-unsolved", is_flag=True, help="Export the policy even if it is not solved.")
@click.option(
    "--if-missing",
    is_flag=True,
    help="Train only if no version in DIR/<name> is solved with all its files as exported.",
)
@json_option
@config_options
@click.pass_context
def train(
    context: click.Context,
    /,
    models: Path,
    name: str,
    preset: Preset,
    config_file: Path | None,
    seed: int,
    start_from: Path | None,
    allowed_modules: tuple[str, ...],
    env_workers: int,
    ray_address: str | None,
    run_dir: Path | None,
    resume: bool,
    allow_unsolved: bool,
    if_missing: bool,
    as_json: bool,
    **_: object,
) -> None:
    """Train until solved with a margin, then export DIR/<name>/<next version>.

    Without a reward threshold, the best policy that was evaluated is exported at the end. A
    hyperparameter that is not given is the preset's; a preset was tuned for its own environment,
    so for any other one observations and rewards are normalised.

    Exit status: 0 exported, because solved or --allow-unsolved, or there already and --if-missing;
    1 the environment or the disk failed; 2 wrong use; 3 not solved and nothing exported; 143 after
    SIGTERM and 130 after Ctrl-C, with a checkpoint to --resume from.
    """
    if if_missing and not resume and (existing := newest_solved(models / name)) is not None:
        _report_existing(existing, as_json)
        return
    received = note_signals()
    with errors_in_one_line(), progress_display() as display, ExitStack() as stack:
        # Mistakes are reported before TensorFlow is imported, which takes seconds.
        if resume:
            settings = _settings_to_resume(context, run_dir)
        else:
            if start_from is None:
                config = chosen_config(context, preset, config_file)
            else:
                config = _config_to_go_on(context, start_from, config_file, allowed_modules)
            settings = RunSettings(
                uuid.uuid4().hex,
                config,
                preset,
                seed,
                str(models / name),
                allow_unsolved,
                None if start_from is None else str(start_from),
                env_workers,
            )
        if run_dir is not None and run_dir.resolve() == Path(settings.models).resolve():
            # The export would wait for the lock on this folder, which the run holds.
            raise Mistake(f"{run_dir} is the folder of the model: a run needs one of its own")
        described = require_environment(settings.config)
        environment = settings.config.environment
        sizes = len(described.observation_names), len(described.action_names)
        if start_from is not None:
            _require_sizes(start_from, environment.id, sizes)
        _warn_of_other_clients(Path(settings.models), environment.id, sizes)
        from training.workers import chosen_workers, connected

        cluster = stack.enter_context(connected(ray_address, environment))
        if cluster is not None and settings.env_workers == 0:
            if resume:
                raise Mistake(f"{run_dir} began without workers: --ray cannot be given")
            settings = settings._replace(env_workers=cluster.processors)
        require_writable(Path(settings.models))
        if run_dir is None:
            run_dir = next_folder(Path("runs") / name)
        stack.enter_context(locked(run_dir))
        larger_budget: int | None = context.params["max_env_steps"] if resume else None
        if not resume:
            claim(run_dir, settings)
        elif larger_budget is not None:
            settings = extend(run_dir, settings, larger_budget)
        else:
            require_unfinished(run_dir)
        # Print it now, so that a run that is killed can be found.
        click.echo(f"training in {run_dir}", err=True)
        # Start it before the imports, so that both import at the same time.
        drawing = stack.enter_context(drawing_process())
        with_environments = _can_store_environments(settings.config)
        workers = chosen_workers(
            environment, settings.env_workers, cluster, storable=with_environments
        )
        display.phase("importing TensorFlow")
        with many_imports():
            from training import run
        summary = run.run(
            settings,
            run_dir,
            display,
            stop_requested=lambda: bool(received),
            drawing=drawing,
            workers=workers,
            with_environments=with_environments,
        )
    if summary is None:
        options = f"--resume --run-dir {shlex.quote(str(run_dir))}"
        click.echo(f"stopped, resume with: {options}", err=True)
        sys.exit(128 + received[0])
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _report(summary)
    if summary["model_dir"] is None:
        sys.exit(NOT_SOLVED)


def _report(summary: dict[str, Any]) -> None:
    """Print the result of a run."""
    if summary["reward_threshold"] is None:
        click.echo("no reward threshold, the best evaluated policy is kept")
    else:
        click.echo("solved" if summary["solved"] else "not solved")
    print_evaluations(summary)
    click.echo(
        f"{summary['env_steps']} steps, {summary['episodes']} episodes, "
        f"{summary['seconds']:.1f} s; {summary['evaluation_steps']} more steps to evaluate"
    )
    click.echo(f"run in {summary['run_dir']}")
    exported = summary["model_dir"]
    click.echo("nothing exported" if exported is None else f"exported {exported}")


def _settings_to_resume(context: click.Context, run_dir: Path | None) -> RunSettings:
    if run_dir is None:
        raise Mistake("--resume needs the --run-dir of the run")
    allowed = {"run_dir", "resume", "as_json", "max_env_steps", "ray_address"}
    for parameter in context.params.keys() - allowed:
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            option = next(one.opts[0] for one in context.command.params if one.name == parameter)
            raise Mistake(f"--resume keeps the settings of the run: {option} cannot be given")
    return read_settings(run_dir)


def _can_store_environments(config: TrainingConfig) -> bool:
    """Whether checkpoints can hold the environments; if not, print what follows from that."""
    from training.storing import reason_against_storing

    reason = reason_against_storing(config.environment)
    if reason is not None:
        click.echo(
            "the environment cannot be stored in checkpoints, so a resumed run begins new "
            f"episodes and is not bit-equal to one that was never stopped ({reason})",
            err=True,
        )
    return reason is None


def _config_to_go_on(
    context: click.Context,
    version: Path,
    config_file: Path | None,
    allowed_modules: tuple[str, ...],
) -> TrainingConfig:
    """The config of a version with the changes of the file and the command line."""
    if context.get_parameter_source("preset") is ParameterSource.COMMANDLINE:
        raise Mistake("--from keeps the hyperparameters of the version: --preset cannot be given")
    values = chosen_values(context, config_file)
    for name in OF_THE_NETWORK & values.keys():
        raise Mistake(f"--from keeps the network of the version: {name} cannot be given")
    start = read_config(version)
    kept = {name: getattr(start, name) for name in OF_THE_NETWORK}
    config = change(start, {**kept, **values})
    named = Environment(str(values.get("env_id", "")), wrappers=tuple(values.get("wrappers", ())))
    require_allowed(config.environment, [*allowed_modules, *named.modules()])
    return config


def _require_sizes(version: Path, env_id: str, wanted: tuple[int, int]) -> None:
    """Check that a version's policy has as many observed numbers and actions as an environment."""
    found = read_sizes(version)
    if wanted != found:
        raise Mistake(
            f"{env_id} has {wanted[0]} numbers in an observation and {wanted[1]} actions, the "
            f"policy of {version} has {found[0]} and {found[1]}"
        )


def _warn_of_other_clients(models: Path, env_id: str, sizes: tuple[int, int]) -> None:
    """Warn if the clients of a model's newest version would get errors from the next one."""
    newest = newest_solved(models)
    with suppress(VersionError):
        if newest is not None and read_sizes(newest) != sizes:
            click.echo(
                f"{newest} is for other observations or actions than {env_id} has: its clients "
                "will get errors from the next version; another --name keeps them apart",
                err=True,
            )


def _report_existing(version: Path, as_json: bool) -> None:
    """Say that nothing was trained, and how to train anyway."""
    if as_json:
        click.echo(json.dumps({"solved": True, "model_dir": str(version)}))
        return
    click.echo(
        f"{version} exists and is solved, so nothing is trained; `train` without --if-missing "
        "trains again (docker compose run --rm train train)"
    )
