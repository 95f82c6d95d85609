"""The commands besides `train`: evaluate, render and sign a version, benchmark a preset."""

import json
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.config_options import HyperparameterCommand, chosen_config, config_options
from training.options import (
    Mistake,
    allow_module_option,
    env_workers_option,
    errors_in_one_line,
    json_option,
    many_imports,
    preset_option,
    print_evaluations,
    ray_option,
    require_allowed,
    require_kept,
    require_writable,
)
from training.presets import Preset

if TYPE_CHECKING:
    from training.artefact import Loaded

model_dir_argument = click.argument(
    "model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
run_graph_option = click.option(
    "--run-graph",
    is_flag=True,
    help="Run the graph of a version that was learned elsewhere. It can do what any program can.",
)


@click.command()
@model_dir_argument
@click.option(
    "--episodes",
    type=click.IntRange(min=1),
    default=100,
    help="How many to play greedily, and as many sampled.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Makes the evaluation reproducible."
)
@allow_module_option
@run_graph_option
@env_workers_option
@ray_option
@json_option
def evaluate(
    model_dir: Path,
    episodes: int,
    seed: int,
    allowed_modules: tuple[str, ...],
    run_graph: bool,
    env_workers: int,
    ray_address: str | None,
    as_json: bool,
) -> None:
    """Play full episodes with the exported version MODEL_DIR."""
    with errors_in_one_line(), ExitStack() as stack:
        loaded = _load(model_dir, allowed_modules, run_graph)

        import numpy as np

        from training.card import evaluation_to_json
        from training.envs import make_shares
        from training.evaluation import ReturnBoundsError
        from training.evaluation import evaluate as run_evaluation
        from training.workers import chosen_workers, connected

        if loaded.training is None and (ray_address is not None or env_workers):
            raise Mistake("a graph runs in this process: --env-workers and --ray cannot be given")
        cluster = stack.enter_context(connected(ray_address, loaded.environment))

        workers = chosen_workers(loaded.environment, env_workers, cluster)
        envs = make_shares(loaded.environment, episodes, one_episode=True, workers=workers)
        stack.enter_context(closing(envs))
        play = partial(
            run_evaluation,
            loaded.policy,
            loaded.environment,
            episodes=episodes,
            envs=envs,
            rng=np.random.default_rng(seed),
            return_bounds=loaded.return_bounds,
        )
        summary: dict[str, Any] = {"environment": loaded.environment.id}
        try:
            summary["greedy"] = evaluation_to_json(play(deterministic=True))
            summary["sampled"] = evaluation_to_json(play(deterministic=False))
        except ReturnBoundsError as error:
            raise Mistake(f"{model_dir}: {error}, as its card says") from error
    if as_json:
        click.echo(json.dumps(summary))
    else:
        print_evaluations(summary)


@click.command()
@model_dir_argument
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="GIF to write, such as episode.gif.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Of the episode's initial state."
)
@allow_module_option
@run_graph_option
def render(
    model_dir: Path,
    output: Path,
    seed: int,
    allowed_modules: tuple[str, ...],
    run_graph: bool,
) -> None:
    """Record a greedy episode of the exported version MODEL_DIR, without a screen."""
    from training.pictures import record_episode

    with errors_in_one_line():
        loaded = _load(model_dir, allowed_modules, run_graph)
        episode_return = record_episode(loaded.policy, loaded.environment, seed, output)
    click.echo(f"return {episode_return:.1f}, recorded in {output}")


@click.command(cls=HyperparameterCommand)
@click.option("--seeds", type=click.IntRange(min=1), required=True, help="Number of runs.")
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=100,
    help="Seed of the first run; the next ones follow.",
)
@preset_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("benchmarks/results"),
    help="Folder for the results as CSV and as a plot.",
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of another benchmark, such as another preset's, to compare with.",
)
@env_workers_option
@ray_option
@json_option
@config_options
@click.pass_context
def benchmark(
    context: click.Context,
    /,
    seeds: int,
    first_seed: int,
    preset: Preset,
    config_file: Path | None,
    output: Path,
    baseline: Path | None,
    env_workers: int,
    ray_address: str | None,
    as_json: bool,
    **_: object,
) -> None:
    """Train once per seed and report how reliably the preset learns.

    The presets were tuned on the seeds 0 to 9. The results are named after the preset, or after
    the file of --config. With --ray they run side by side, one on each of its processors.
    """
    if ray_address is not None and env_workers:
        raise Mistake("with --ray every run has one processor: --env-workers cannot be given")
    table = sys.stderr if as_json else sys.stdout
    with errors_in_one_line():
        config = chosen_config(context, preset, config_file)
        name = preset if config_file is None else config_file.stem
        require_kept(output / f"{name}.csv", baseline)
        require_writable(output)
        from training.workers import WITH_TENSORFLOW, chosen_workers, connected

        with connected(ray_address, config.environment, *WITH_TENSORFLOW) as cluster:
            with many_imports():
                from training.benchmark import benchmark as run_benchmark
                from training.benchmark import read_baseline, write_results

            result = run_benchmark(
                config,
                name,
                range(first_seed, first_seed + seeds),
                None if baseline is None else read_baseline(baseline),
                report=lambda line: click.echo(line, file=table),
                workers=None if cluster else chosen_workers(config.environment, env_workers),
                map_seeds=map if cluster is None else cluster.map,
            )
        # Before the files: if they cannot be written, hours of results must not be lost.
        if as_json:
            click.echo(json.dumps(result))
        try:
            write_results(result["runs"], result["preset"], output)
        except OSError as error:
            where = error.filename or output
            raise Mistake(f"{where} cannot be written: {error.strerror or error}", 1) from error


@click.command()
@click.argument(
    "model_dir", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
)
@click.option(
    "--key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key in PEM, of the curve P-256, P-384 or P-521, without a password.",
)
def sign(model_dir: Path, key: Path) -> None:
    """Sign the exported version MODEL_DIR: write model.sig into it, in place of an older one.

    A service with --trusted-keys serves no version without this.
    """
    try:
        from training import signing
    except ModuleNotFoundError as error:
        raise Mistake(f"signing needs actor-critic[sign]: {error}") from error
    try:
        with errors_in_one_line():
            signing.sign(model_dir, key)
    except OSError as error:
        raise Mistake(f"{model_dir} cannot be signed: {error.strerror}") from error
    click.echo(f"signed {model_dir}")


def _load(model_dir: Path, allowed_modules: tuple[str, ...], run_graph: bool) -> "Loaded":
    with many_imports():
        from training.artefact import ArtefactError, load
        from training.envs import describe

    try:
        loaded = load(model_dir, run_graph=run_graph)
    except ArtefactError as error:
        raise Mistake(f"{model_dir} cannot be loaded: {error}") from error
    require_allowed(loaded.environment, allowed_modules)
    described = describe(loaded.environment)
    sizes = len(described.observation_names), len(described.action_names)
    if sizes != (loaded.observation_size, loaded.num_actions):
        raise Mistake(f"{model_dir} is not a policy for {loaded.environment.id}, as its card says")
    return loaded
