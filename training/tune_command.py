"""The command `tune`: search the hyperparameters of a preset for an environment."""

import json
import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from training.config_options import (
    HyperparameterCommand,
    chosen_config,
    chosen_values,
    config_options,
    to_toml,
)
from training.files import write_text
from training.options import (
    Mistake,
    errors_in_one_line,
    json_option,
    plain_name,
    preset_option,
    ray_option,
    require_environment,
    require_kept,
    require_writable,
)
from training.presets import PRESETS, Preset
from training.search import differences, searched


@click.command(cls=HyperparameterCommand)
@preset_option
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=50,
    help="How many in all; those that the study has already are counted.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=2, help="Runs of a trial, of the seeds 0, 1, ..."
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, help="How many trials at a time."
)
@ray_option
@click.option(
    "--name",
    callback=plain_name,
    help="Name of the study.  [default: that of the preset, or of the file of --config]",
)
@click.option(
    "--storage",
    type=click.Path(dir_okay=False, path_type=Path),
    help="SQLite file of the study.  [default: tune/<name>.db]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file of the best hyperparameters.  [default: tune/<name>.toml]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the sampler.")
@json_option
@config_options
@click.pass_context
def tune(
    context: click.Context,
    /,
    preset: Preset,
    config_file: Path | None,
    trials: int,
    seeds: int,
    processes: int,
    ray_address: str | None,
    name: str | None,
    storage: Path | None,
    output: Path | None,
    seed: int,
    as_json: bool,
    **_: object,
) -> None:
    """Search hyperparameters, and write the best as a file for `train --config`.

    Those that are given, as an option or in the file of --config, are fixed; docs/own.md has the
    ranges of the others. A trial trains once per seed. The same command continues with a study that
    was stopped or killed: only the trials that ran then are lost.

    Exit status: 0 all trials are there; 1 a trial failed; 2 wrong use; 143 after SIGTERM and 130
    after Ctrl-C.
    """
    try:
        from training.study import Study
        from training.tune import tune as run_study
    except ModuleNotFoundError as error:
        raise Mistake(f"tuning needs actor-critic[tune]: {error}") from error
    if ray_address is not None and processes > 1:
        raise Mistake("with --ray a trial runs on every processor: --processes cannot be given")
    with errors_in_one_line(), ExitStack() as stack:
        config = chosen_config(context, preset, config_file)
        names = searched(config, chosen_values(context, config_file))
        if not names:
            raise Mistake("every hyperparameter that could be searched is given")
        to_toml(differences(config, PRESETS[preset]))  # fails now, rather than after the search
        require_environment(config)
        if name is None:
            name = preset if config_file is None else config_file.stem
        storage = storage or Path("tune") / f"{name}.db"
        output = output or Path("tune") / f"{name}.toml"
        for path in (storage, output):
            require_writable(path.parent)
        require_kept(output, storage, config_file)
        if output.exists() and not output.is_file():
            raise Mistake(f"{output}: it is not a regular file")
        from training.workers import WITH_TENSORFLOW, connected

        cluster = stack.enter_context(connected(ray_address, config.environment, *WITH_TENSORFLOW))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        study = Study(name, storage, config, names, seeds)
        best = run_study(study, trials, processes, seed, cluster)
    values = differences(best.config, PRESETS[preset])
    use = f"python -m training train --preset {preset} --config {shlex.quote(str(output))}"
    title = f"Trial {best.number} of the study {name}, score {best.score:g}."
    comments = "".join(f"# {_printable(line)}\n" for line in (title, use))
    # First: what took hours must not be lost with the file.
    if as_json:
        summary = {
            "study": name,
            "storage": str(storage),
            "trials": best.counts,
            "best": {"trial": best.number, "score": best.score, "hyperparameters": values},
            "config": str(output),
        }
        click.echo(json.dumps(summary))
    else:
        counted = ", ".join(f"{count} {ended}" for ended, count in best.counts.items())
        click.echo(f"best is trial {best.number}, score {best.score:.1f}; trials: {counted}")
    try:
        write_text(output.resolve(), comments + to_toml(values))
    except OSError as error:
        raise Mistake(f"{output} cannot be written: {error.strerror}", 1) from error
    if not as_json:
        click.echo(_printable(f"{output}: {use}"))


def _printable(text: str) -> str:
    """Replace what a comment of TOML cannot hold, such as line breaks in file names."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _stop(number: int, _frame: object) -> None:
    click.echo("stopped; the same command continues the study", err=True)
    sys.exit(128 + number)
