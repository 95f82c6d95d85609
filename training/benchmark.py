"""How reliably a preset learns: the same training with many seeds."""

import csv
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.config import TrainingConfig
from training.errors import TrainingError
from training.intervals import bootstrap_interval
from training.scores import interquartile_mean, probability_of_improvement
from training.shares import Workers
from training.trainer import Trainer
from training.types import DoubleArray

# What is measured, and whether more of it is better or worse.
MEASURES = {"env_steps": -1, "seconds": -1, "greedy": 1, "sampled": 1}
COLUMNS = ("seed", "solved", *MEASURES)


class BaselineError(TrainingError):
    """A file is not the table of a benchmark."""


def benchmark(
    config: TrainingConfig,
    name: str,
    seeds: Iterable[int],
    baseline: list[dict[str, float]] | None,
    report: Callable[[str], None],
    workers: Workers | None = None,
    map_seeds: Callable[..., Iterable[dict[str, Any]]] = map,
) -> dict[str, Any]:
    """Train once for each seed.

    Args:
        config: what to train.
        name: of the results.
        seeds: at least one.
        baseline: the runs of another benchmark to compare with, if any.
        report: called with each line of the table as soon as it is known.
        workers: what steps the environments, if not the process that trains.
        map_seeds: calls a function for each seed: in this process, one after another, or as
            `training.ray_cluster.Cluster.map` does.

    Returns:
        `runs`, and their `median`, `worst` and `interquartile_mean`, in JSON values, and with a
        baseline the `probability_of_improvement`. Seconds run from a run's first reset to
        its last evaluation: compiling and exporting are excluded.
    """
    report("  ".join(f"{column:>9}" for column in COLUMNS))
    runs = []
    for run in map_seeds(partial(_run, config, workers), seeds):
        runs.append(run)
        report(_line(run))
    solved = f"{sum(run['solved'] for run in runs)}/{len(runs)}"
    median = {measure: statistics.median(run[measure] for run in runs) for measure in MEASURES}
    worst = {
        measure: (max if sign < 0 else min)(run[measure] for run in runs)
        for measure, sign in MEASURES.items()
    }
    report(_line({"seed": "median", "solved": solved, **median}))
    report(_line({"seed": "worst", "solved": solved, **worst}))
    estimates = {"interquartile_mean": _estimate(interquartile_mean, _columns(runs))}
    if baseline is not None:
        # Where less is better, less is an improvement.
        scores, others = (
            {measure: sign * _columns(of)[measure] for measure, sign in MEASURES.items()}
            for of in (runs, baseline)
        )
        estimates["probability_of_improvement"] = _estimate(
            probability_of_improvement, scores, others
        )
    for what, estimate in estimates.items():
        report(what.replace("_", " "))
        for part, values in estimate.items():
            report(_line({"seed": part, "solved": "", **values}))
    return {"preset": name, "runs": runs, "median": median, "worst": worst, **estimates}


def write_results(runs: list[dict[str, Any]], name: str, output: Path) -> None:
    """Write the runs of a benchmark to `<name>.csv` and `<name>.png` in the folder `output`.

    Raises:
        OSError: one of them cannot be written.
    """
    with (output / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)
    _plot(runs, name, output / f"{name}.png")


def read_baseline(path: Path) -> list[dict[str, float]]:
    """Read the table that an earlier benchmark wrote.

    Raises:
        BaselineError: it cannot be read, or is no such table.
    """
    try:
        with path.open(newline="") as file:
            runs = [{name: float(row[name]) for name in MEASURES} for row in csv.DictReader(file)]
        if not all(math.isfinite(number) for run in runs for number in run.values()):
            raise ValueError("a number is not finite")
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise BaselineError(f"{path} is not the table of a benchmark: {error}") from error
    if not runs:
        raise BaselineError(f"{path} has no runs")
    return runs


def _run(config: TrainingConfig, workers: Workers | None, seed: int) -> dict[str, Any]:
    with closing(Trainer(config, seed, workers=workers)) as trainer:
        started = time.perf_counter()
        while trainer.state.result is None:
            trainer.step()
        seconds = time.perf_counter() - started
    return {
        "seed": seed,
        "solved": trainer.state.result.solved,
        "env_steps": trainer.state.env_steps,
        "seconds": round(seconds, 3),
        "greedy": trainer.state.result.greedy.mean,
        "sampled": trainer.state.result.sampled.mean,
    }


def _estimate(
    statistic: Callable[..., DoubleArray], *samples: Mapping[str, DoubleArray]
) -> dict[str, dict[str, float]]:
    """A statistic of every measure, `value`, with its 95% interval from `low` to `high`."""
    estimate: dict[str, dict[str, float]] = {"value": {}, "low": {}, "high": {}}
    for name in MEASURES:
        of_name = [sample[name] for sample in samples]
        estimate["value"][name] = float(statistic(*of_name))
        estimate["low"][name], estimate["high"][name] = bootstrap_interval(statistic, *of_name)
    return estimate


def _columns(runs: list[dict[str, Any]]) -> dict[str, DoubleArray]:
    return {name: np.array([run[name] for run in runs], np.float64) for name in MEASURES}


def _line(row: dict[str, Any]) -> str:
    cells = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values())
    return "  ".join(f"{cell:>9}" for cell in cells)


def _plot(runs: list[dict[str, Any]], name: str, path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [run["env_steps"] for run in runs]
    axes.plot(steps, [run["greedy"] for run in runs], "o", label="greedy")
    axes.plot(steps, [run["sampled"] for run in runs], "x", label="sampled")
    axes.set_xlabel("environment steps until the run ended")
    axes.set_ylabel("mean return of the last evaluation")
    axes.set_title(f"{name}, {len(runs)} seeds")
    axes.legend()
    figure.savefig(path, dpi=120)
