"""Training speed on CartPole-v1, compared with stable-baselines3 on the same seeds.

    python benchmarks/training_comparison.py [--seeds 10] [--json]
    python benchmarks/training_comparison.py --scaling [--json]

For all contenders, the measured time is from the first reset to the end of the first evaluation
that reaches a mean return of 475, sampled and then greedy, over 100 episodes each in Gymnasium's
own vector environment. Evaluations are included; what precedes the reset, such as compiling, is
reported separately as set-up; imports are not measured. stable-baselines3 is evaluated every 2,048
environment steps. Training ends with that evaluation, or when the budget is used up. Two more
contenders: PPO for all of rl-zoo3's 100,000 steps, evaluated once at the end (only on the first
three seeds), and our whole command, `python -m training train`, which trains until the threshold is
reached with a margin, draws its pictures and exports the verified artefact.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

if __name__ == "__main__":  # sys.path[0] of a script is its folder, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import RESULTS, ROOT, median_and_range, peer_python, table, write_csv
from benchmarks.training_report import (
    LABELS,
    Run,
    contender_table,
    plot,
    ratio_table,
    ratios,
)

NUM_ENVS = (8, 64, 512, 4_096)
SCALING_REPEATS = 3
FULL_SEEDS = 3  # its whole budget takes longer than all other contenders
NOT_SOLVED = 3  # exit status of `python -m training train`


def run_json(*command: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a program in the project's folder and decode its standard output as JSON."""
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_ours(*arguments: str) -> dict[str, Any]:
    """Run `ours_contender.py` with TensorFlow configured as in `training.cli`."""
    settings = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_USE_LEGACY_KERAS": "1",
    }
    env = settings | os.environ
    return run_json(sys.executable, "-m", "benchmarks.ours_contender", *arguments, env=env)


def run_command(seed: int) -> Run:
    """Time `python -m training train` from the start of its process to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "training", "train", "--seed", str(seed), "--json"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--models", f"{folder}/models", "--run-dir", f"{folder}/run"],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - started
    if done.returncode not in (0, NOT_SOLVED):
        sys.exit(done.stderr)
    summary = json.loads(done.stdout)
    return Run(
        seed=seed,
        contender="command",
        passed=done.returncode == 0,
        env_steps=summary["env_steps"],
        seconds=seconds,
        greedy=summary["greedy"]["mean"],
        sampled=summary["sampled"]["mean"],
    )


def run_seed(seed: int, peer: Path, *, full: bool) -> Iterable[Run]:
    """Run every contender once, one after another, so that noise affects all."""
    sb3 = ROOT / "benchmarks" / "sb3_contender.py"
    for contender in ("ours", "sb3_ppo", "sb3_a2c", *(["sb3_ppo_full"] if full else [])):
        if contender == "ours":
            measured = run_ours("first-pass", str(seed))
        else:
            measured = run_json(peer, sb3, contender.removeprefix("sb3_"), str(seed))
        steps_per_second = measured["env_steps"] / measured["learning_seconds"]
        yield Run(seed=seed, contender=contender, steps_per_second=steps_per_second, **measured)
    yield run_command(seed)


def scaling() -> dict[int, list[float]]:
    """Our environment steps per second while learning, by the number of environments."""
    speeds: dict[int, list[float]] = {num_envs: [] for num_envs in NUM_ENVS}
    for _ in range(SCALING_REPEATS):
        for num_envs, measured in speeds.items():
            measured.append(run_ours("speed", str(num_envs))["steps_per_second"])
            click.echo(f"{num_envs} environments: {measured[-1]:,.0f} steps/s", err=True)
    return speeds


@click.command(context_settings={"show_default": True})
@click.option("--seeds", type=click.IntRange(min=1), default=10, help="Number of seeds.")
@click.option("--first-seed", type=click.IntRange(min=0), default=0, help="The first seed.")
@click.option("--scaling", "only_scaling", is_flag=True, help="Only measure speed by num_envs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(seeds: int, first_seed: int, only_scaling: bool, as_json: bool) -> None:
    """Compare with stable-baselines3; also writes benchmarks/results/training.csv and .png."""
    if only_scaling:
        speeds = scaling()
        rows = [["environments", "steps/s, median (min..max)"]]
        rows += [[f"{num_envs:,}", median_and_range(speeds[num_envs], 0)] for num_envs in speeds]
        click.echo(json.dumps({"steps_per_second": speeds}) if as_json else table(rows))
        return

    peer = peer_python("training", whole_lock=False)  # the lock file omits torch
    runs = []
    for seed in range(first_seed, first_seed + seeds):
        for run in run_seed(seed, peer, full=seed < first_seed + FULL_SEEDS):
            runs.append(run)
            result = "passed" if run.passed else "did not pass"
            label = LABELS[run.contender]
            click.echo(f"seed {seed}  {label:37}  {result}, {run.seconds:.2f} s", err=True)
    RESULTS.mkdir(exist_ok=True)
    write_csv(runs, RESULTS / "training.csv")
    by_seed = ratios(runs)
    if as_json:
        click.echo(json.dumps({"runs": list(map(dataclasses.asdict, runs)), "ratios": by_seed}))
    else:
        click.echo(f"{contender_table(runs)}\n\n{ratio_table(by_seed)}\n")
        click.echo("A run that did not pass is counted with its whole budget.")
    plot(runs, RESULTS / "training.png")


if __name__ == "__main__":
    main()
