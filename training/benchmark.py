"""How reliably a preset learns: the same training with many seeds."""

import csv
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.config import PRESETS, Preset
from training.trainer import Trainer

COLUMNS = ("seed", "solved", "env_steps", "seconds", "greedy", "sampled")


def benchmark(
    preset: Preset, seeds: Iterable[int], output: Path, report: Callable[[str], None]
) -> dict[str, Any]:
    """Train once for each seed, one after the other in this process.

    Args:
        preset: what to train.
        seeds: at least one.
        output: folder for `<preset>.csv` and `<preset>.png`.
        report: called with each line of the table as soon as it is known.

    Returns:
        `runs`, and their `median` and `worst`, in JSON values. Seconds are those of the run
        from its first reset to its last evaluation: compiling and exporting are not in them.
    """
    report("  ".join(f"{column:>9}" for column in COLUMNS))
    runs = []
    for seed in seeds:
        runs.append(_run(preset, seed))
        report(_line(runs[-1]))
    numbers = [column for column in COLUMNS if column not in ("seed", "solved")]
    worst_of = {"env_steps": max, "seconds": max, "greedy": min, "sampled": min}
    solved = f"{sum(run['solved'] for run in runs)}/{len(runs)}"
    median = {name: statistics.median(run[name] for run in runs) for name in numbers}
    worst = {name: worst_of[name](run[name] for run in runs) for name in numbers}
    report(_line({"seed": "median", "solved": solved, **median}))
    report(_line({"seed": "worst", "solved": solved, **worst}))
    with (output / f"{preset}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)
    _plot(runs, preset, output / f"{preset}.png")
    return {"preset": preset, "runs": runs, "median": median, "worst": worst}


def _run(preset: Preset, seed: int) -> dict[str, Any]:
    trainer = Trainer(PRESETS[preset], seed)
    started = time.perf_counter()
    while trainer.state.result is None:
        trainer.step()
    return {
        "seed": seed,
        "solved": trainer.state.result.solved,
        "env_steps": trainer.state.env_steps,
        "seconds": round(time.perf_counter() - started, 3),
        "greedy": trainer.state.result.greedy.mean,
        "sampled": trainer.state.result.sampled.mean,
    }


def _line(row: dict[str, Any]) -> str:
    cells = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values())
    return "  ".join(f"{cell:>9}" for cell in cells)


def _plot(runs: list[dict[str, Any]], preset: str, path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [run["env_steps"] for run in runs]
    axes.plot(steps, [run["greedy"] for run in runs], "o", label="greedy")
    axes.plot(steps, [run["sampled"] for run in runs], "x", label="sampled")
    axes.set_xlabel("environment steps until the run ended")
    axes.set_ylabel("mean return of 100 episodes")
    axes.set_title(f"preset {preset}, {len(runs)} seeds")
    axes.legend()
    figure.savefig(path, dpi=120)
