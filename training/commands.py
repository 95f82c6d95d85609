"""The commands besides `train`: evaluate, render and sign a version, benchmark a preset."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.config import Preset
from training.options import (
    Mistake,
    json_option,
    many_imports,
    preset_option,
    print_evaluations,
    require_writable,
)

if TYPE_CHECKING:
    from training.artefact import Loaded

model_dir_argument = click.argument(
    "model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path)
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
@json_option
def evaluate(model_dir: Path, episodes: int, seed: int, as_json: bool) -> None:
    """Play full episodes with the exported version MODEL_DIR."""
    policy, env_id, return_bounds = _load(model_dir)

    import numpy as np

    from training.card import evaluation_to_json
    from training.evaluation import ReturnBoundsError
    from training.evaluation import evaluate as run_evaluation

    play = partial(
        run_evaluation,
        policy,
        env_id,
        episodes=episodes,
        rng=np.random.default_rng(seed),
        return_bounds=return_bounds,
    )
    summary: dict[str, Any] = {"environment": env_id}
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
def render(model_dir: Path, output: Path, seed: int) -> None:
    """Record a greedy episode of the exported version MODEL_DIR, without a screen."""
    from training.pictures import record_episode

    policy, env_id, _ = _load(model_dir)
    try:
        episode_return = record_episode(policy, env_id, seed, output)
    except OSError as error:
        raise Mistake(f"{output} cannot be written: {error.strerror}") from error
    click.echo(f"return {episode_return:.1f}, recorded in {output}")


@click.command()
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
@json_option
def benchmark(
    seeds: int,
    first_seed: int,
    preset: Preset,
    output: Path,
    baseline: Path | None,
    as_json: bool,
) -> None:
    """Train once per seed and report how reliably the preset learns.

    The presets were tuned on the seeds 0 to 9.
    """
    require_writable(output)
    with many_imports():
        from training.benchmark import BaselineError, read_baseline
        from training.benchmark import benchmark as run_benchmark

    try:
        runs = None if baseline is None else read_baseline(baseline)
    except BaselineError as error:
        raise Mistake(str(error)) from error
    result = run_benchmark(
        preset,
        range(first_seed, first_seed + seeds),
        output,
        runs,
        report=lambda line: click.echo(line, err=as_json),
    )
    if as_json:
        click.echo(json.dumps(result))


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
        signing.sign(model_dir, key)
    except signing.SigningError as error:
        raise Mistake(str(error)) from error
    except OSError as error:
        raise Mistake(f"{model_dir} cannot be signed: {error.strerror}") from error
    click.echo(f"signed {model_dir}")


def _load(model_dir: Path) -> "Loaded":
    with many_imports():
        from gymnasium.spaces import flatdim

        from training.artefact import ArtefactError, load
        from training.envs import UnsupportedEnvironmentError, make_vector_env

    try:
        loaded = load(model_dir)
        env = make_vector_env(loaded.env_id, 1)
    except ArtefactError as error:
        raise Mistake(f"{model_dir} is not an exported version: {error}") from error
    except UnsupportedEnvironmentError as error:
        raise Mistake(str(error)) from error
    env.close()
    sizes = loaded.policy.observation_size, loaded.policy.num_actions
    if sizes != (flatdim(env.single_observation_space), flatdim(env.single_action_space)):
        raise Mistake(f"{model_dir} is not a policy for {loaded.env_id}, as its card says")
    return loaded
