"""What `training_comparison.py` measures, and how it is reported: ratios, tables and a plot."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import median_and_range, table

LABELS = {
    "ours": "ours",
    "ours_workers": "ours, two processes",
    "sb3_ppo": "stable-baselines3 PPO",
    "sb3_a2c": "stable-baselines3 A2C",
    "sb3_ppo_full": "stable-baselines3 PPO, 100,000 steps",
    "rejax": "rejax PPO, estimated",
    "command": "our command to its artefact",
}
# Each is the quotient of two contenders' fields.
RATIOS = {
    "PPO s / our s": (("sb3_ppo", "seconds"), ("ours", "seconds")),
    "with set-up": (("sb3_ppo", "seconds_with_setup"), ("ours", "seconds_with_setup")),
    "PPO s / our s, two processes": (("sb3_ppo", "seconds"), ("ours_workers", "seconds")),
    "A2C s / our s": (("sb3_a2c", "seconds"), ("ours", "seconds")),
    "our steps/s / PPO's": (("ours", "steps_per_second"), ("sb3_ppo", "steps_per_second")),
    "PPO s / our command s": (("sb3_ppo", "seconds"), ("command", "seconds")),
    "full PPO learning s / our command s": (
        ("sb3_ppo_full", "learning_seconds"),
        ("command", "seconds"),
    ),
    "rejax s / our s": (("rejax", "seconds"), ("ours", "seconds")),
    "rejax with set-up": (("rejax", "seconds_with_setup"), ("ours", "seconds_with_setup")),
    "our steps/s / rejax's": (("ours", "steps_per_second"), ("rejax", "steps_per_second")),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One contender's run on one seed; the whole command does not report all fields."""

    seed: int
    contender: str  # a key of LABELS
    passed: bool  # within its budget
    env_steps: int
    import_seconds: float | None = None  # only rejax's, which are longer than its run
    setup_seconds: float | None = None  # from the end of the imports to the first reset
    seconds: float  # as `training_comparison.py` defines it; estimated for rejax
    learning_seconds: float | None = None  # the same without evaluations
    steps_per_second: float | None = None  # while learning, rollouts included
    greedy: float | None  # mean return of the last evaluation; None if there was none
    sampled: float

    @property
    def seconds_with_setup(self) -> float | None:
        """From the end of the imports; None if the set-up was not reported."""
        return None if self.setup_seconds is None else self.setup_seconds + self.seconds


def ratios(runs: Sequence[Run]) -> dict[int, dict[str, float | None]]:
    """By seed, the `RATIOS` of the contenders that ran; None where a seed lacks one."""
    there = {run.contender for run in runs}
    wanted = {
        name: (above, below)
        for name, (above, below) in RATIOS.items()
        if {above[0], below[0]} <= there
    }
    by_seed: dict[int, dict[str, Run]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, {})[run.contender] = run
    return {
        seed: {
            name: (
                getattr(by_contender[above[0]], above[1])
                / getattr(by_contender[below[0]], below[1])
                if {above[0], below[0]} <= by_contender.keys()
                else None
            )
            for name, (above, below) in wanted.items()
        }
        for seed, by_contender in by_seed.items()
    }


def contender_table(runs: Sequence[Run]) -> str:
    """Median, minimum and maximum of every contender."""
    digits = {"env_steps": 0, "setup_seconds": 2, "seconds": 2, "learning_seconds": 2}
    digits |= {"steps_per_second": 0, "greedy": 1, "sampled": 1}
    rows = [["median (min..max)", "passed", *(field.replace("_", " ") for field in digits)]]
    for contender, own in _by_contender(runs).items():
        cells = [
            median_and_range((getattr(run, field) for run in own), places)
            for field, places in digits.items()
        ]
        rows.append([LABELS[contender], f"{sum(run.passed for run in own)}/{len(own)}", *cells])
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


def report(runs: Sequence[Run]) -> str:
    """All tables, and notes on how to read them."""
    parts = [contender_table(runs), "", ratio_table(ratios(runs)), ""]
    parts.append("A run that did not pass is counted with its whole budget.")
    imports = [run.import_seconds for run in runs if run.contender == "rejax"]
    if imports:
        parts.append(
            f"rejax is imported in {median_and_range(imports, 2)} s, which are counted nowhere; "
            "its first pass is of sampled actions only."
        )
    return "\n".join(parts)


def plot(runs: Sequence[Run], path: Path) -> None:
    """Plot one point per run and one bar per median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    titles = {
        "seconds": "seconds to the first pass",
        "steps_per_second": "environment steps per second while learning",
    }
    for axes, (field, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for contender, own in _by_contender(runs).items():
            values = [getattr(run, field) for run in own]
            if None not in values:
                label = LABELS[contender]
                axes.scatter([label] * len(values), values, alpha=0.6)
                axes.scatter(label, statistics.median(values), marker="_", s=800, color="black")
        axes.set(title=title, yscale="log")
        axes.grid(axis="y", which="both", alpha=0.3)
        axes.tick_params(axis="x", labelrotation=15)
    figure.savefig(path, dpi=150)


def _by_contender(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each contender that ran, in the order of `LABELS`."""
    there = {run.contender for run in runs}
    return {
        contender: [run for run in runs if run.contender == contender]
        for contender in LABELS
        if contender in there
    }
