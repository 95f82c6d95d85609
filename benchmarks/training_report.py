"""What `training_comparison.py` measures, and how it is reported: ratios, tables and a plot."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import median_and_range, table

LABELS = {
    "ours": "ours, ppo",
    "sb3_ppo": "stable-baselines3 PPO",
    "sb3_a2c": "stable-baselines3 A2C",
    "sb3_ppo_full": "stable-baselines3 PPO, 100,000 steps",
    "command": "our command to its artefact",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One contender's run on one seed; the whole command does not report all fields."""

    seed: int
    contender: str  # a key of LABELS
    passed: bool  # within its budget
    env_steps: int
    setup_seconds: float | None = None  # from the end of the imports to the first reset
    seconds: float  # as `training_comparison.py` defines it
    learning_seconds: float | None = None  # the same without evaluations
    steps_per_second: float | None = None  # while learning, rollouts included
    greedy: float | None  # mean return of the last evaluation; None if there was none
    sampled: float


def ratios(runs: Sequence[Run]) -> dict[int, dict[str, float | None]]:
    """By seed, the ratios of stable-baselines3 to ours."""
    by_seed: dict[int, dict[str, Any]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, {})[run.contender] = run
    compared = {}
    for seed, by_contender in by_seed.items():
        always = (contender for contender in LABELS if contender != "sb3_ppo_full")
        ours, ppo, a2c, command = (by_contender[contender] for contender in always)
        full = by_contender.get("sb3_ppo_full")
        with_setup = ours.setup_seconds + ours.seconds
        compared[seed] = {
            "PPO s / our s": ppo.seconds / ours.seconds,
            "with set-up": (ppo.setup_seconds + ppo.seconds) / with_setup,
            "A2C s / our s": a2c.seconds / ours.seconds,
            "our steps/s / PPO's": ours.steps_per_second / ppo.steps_per_second,
            "PPO s / our command s": ppo.seconds / command.seconds,
            "full PPO learning s / our command s": (
                None if full is None else full.learning_seconds / command.seconds
            ),
        }
    return compared


def contender_table(runs: Sequence[Run]) -> str:
    """Median, minimum and maximum of every contender."""
    digits = {"env_steps": 0, "setup_seconds": 2, "seconds": 2, "learning_seconds": 2}
    digits |= {"steps_per_second": 0, "greedy": 1, "sampled": 1}
    rows = [["median (min..max)", "passed", *(field.replace("_", " ") for field in digits)]]
    for contender, label in LABELS.items():
        own = [run for run in runs if run.contender == contender]
        cells = [
            median_and_range((getattr(run, field) for run in own), places)
            for field, places in digits.items()
        ]
        rows.append([label, f"{sum(run.passed for run in own)}/{len(own)}", *cells])
    return table(rows)


def ratio_table(by_seed: dict[int, dict[str, float | None]]) -> str:
    """The ratios of every seed, and their median, minimum and maximum."""
    names = list(next(iter(by_seed.values())))
    rows = [["seed", *names]]
    for seed, ratio in by_seed.items():
        cells = ("-" if value is None else f"{value:.2f}" for value in ratio.values())
        rows.append([str(seed), *cells])
    total = [median_and_range((ratio[name] for ratio in by_seed.values()), 2) for name in names]
    return table([*rows, ["all", *total]])


def plot(runs: Sequence[Run], path: Path) -> None:
    """Plot one point per run and one bar per median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    titles = {
        "seconds": "seconds to the first pass",
        "steps_per_second": "environment steps per second while learning",
    }
    for axes, (field, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for contender, label in LABELS.items():
            values = [getattr(run, field) for run in runs if run.contender == contender]
            if None not in values:
                axes.scatter([label] * len(values), values, alpha=0.6)
                axes.scatter(label, statistics.median(values), marker="_", s=800, color="black")
        axes.set(title=title, yscale="log")
        axes.grid(axis="y", which="both", alpha=0.3)
        axes.tick_params(axis="x", labelrotation=15)
    figure.savefig(path, dpi=150)
