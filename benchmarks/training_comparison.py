"""Training speed compared with stable-baselines3 and rejax, on the same seeds.

    python benchmarks/training_comparison.py [--env CartPole-v1] [--seeds 10] [--json]
    python benchmarks/training_comparison.py --scaling [--json]

Our preset for the environment and stable-baselines3's PPO with rl-zoo3's hyperparameters are
measured from the first reset to the end of the first evaluation that reaches the environment's
reward threshold, sampled and then greedy, over 100 episodes each. Where Gymnasium has a vector
environment of its own (CartPole), both are evaluated in it; elsewhere the environments of an
evaluation are stepped one by one, each only until its episode ends. Evaluations are included; what
precedes the reset, such as compiling, is reported separately as set-up; imports are not measured.
stable-baselines3 is evaluated every 2,048 environment steps of CartPole and every 20,480 of the
others, as soon as a rollout has been learned from; ours as its preset says, which is every 5,120
and 20,480. Training ends with the first pass, or when the budget is used up.

In environments other than CartPole, ours is also measured with two processes (`--env-workers 2`).
CartPole has more contenders: stable-baselines3's A2C; its PPO for all of rl-zoo3's 100,000 steps,
evaluated once at the end (only on the first three seeds); rejax's PPO, whose time to the first pass
is an estimate (see `rejax_contender.py`); and our whole command, `python -m training train`, which
trains until the threshold is reached with a margin, draws its pictures and exports the verified
artefact.
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
from benchmarks.training_report import LABELS, Run, plot, ratios, report
from training.libraries import VARIABLES

CARTPOLE = "CartPole-v1"
PRESET_OF_ENV = {CARTPOLE: "ppo", "Acrobot-v1": "acrobot", "LunarLander-v3": "lunarlander"}
NUM_ENVS = (8, 32, 64, 512, 4_096)
REJAX_NUM_ENVS = 32  # as in our preset
SCALING_REPEATS = 3
ENV_WORKERS = 2
FULL_SEEDS = 3  # its whole budget takes longer than all other contenders
NOT_SOLVED = 3  # exit status of `python -m training train`


def run_json(*command: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a program in the project's folder and decode its standard output as JSON."""
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_ours(*arguments: str) -> dict[str, Any]:
    """Run `ours_contender.py` with the libraries set up as in the training commands."""
    env = VARIABLES | os.environ
    return run_json(sys.executable, "-m", "benchmarks.ours_contender", *arguments, env=env)


def run_sb3(*arguments: str) -> dict[str, Any]:
    """Run `sb3_contender.py` in its virtual environment."""
    peer = peer_python("training", whole_lock=False)  # the lock file omits torch
    return run_json(peer, ROOT / "benchmarks" / "sb3_contender.py", *arguments)


def run_rejax(*arguments: str) -> dict[str, Any]:
    """Run `rejax_contender.py` in its virtual environment."""
    return run_json(peer_python("rejax"), ROOT / "benchmarks" / "rejax_contender.py", *arguments)


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


def run_seed(env_id: str, seed: int, *, full: bool) -> Iterable[Run]:
    """Run every contender once, one after another, so that noise affects all."""
    contenders = ["ours", "sb3_ppo"]
    if env_id == CARTPOLE:
        contenders += ["sb3_a2c", *(["sb3_ppo_full"] if full else []), "rejax"]
    else:
        contenders.append("ours_workers")
    for contender in contenders:
        if contender.startswith("ours"):
            workers = 0 if contender == "ours" else ENV_WORKERS
            measured = run_ours("first-pass", PRESET_OF_ENV[env_id], str(seed), str(workers))
        elif contender == "rejax":
            measured = run_rejax("first-pass", str(seed))
        else:
            measured = run_sb3(contender.removeprefix("sb3_"), env_id, str(seed))
        steps_per_second = measured["env_steps"] / measured["learning_seconds"]
        yield Run(seed=seed, contender=contender, steps_per_second=steps_per_second, **measured)
    if env_id == CARTPOLE:
        yield run_command(seed)


def scaling() -> list[dict[str, Any]]:
    """Environment steps per second while learning CartPole, by the number of environments."""
    speeds: list[dict[str, Any]] = [
        {"contender": contender, "num_envs": num_envs, "steps_per_second": []}
        for contender, num_envs in [*(("ours", n) for n in NUM_ENVS), ("rejax", REJAX_NUM_ENVS)]
    ]
    for _ in range(SCALING_REPEATS):
        for speed in speeds:
            contender, num_envs = speed["contender"], speed["num_envs"]
            run = run_ours if contender == "ours" else run_rejax
            measured = run("speed", str(num_envs))["steps_per_second"]
            speed["steps_per_second"].append(measured)
            click.echo(f"{contender}, {num_envs} environments: {measured:,.0f} steps/s", err=True)
    return speeds


def scaling_table(speeds: list[dict[str, Any]]) -> str:
    """One row per contender and number of environments."""
    rows = [["contender", "environments", "steps/s, median (min..max)"]]
    for speed in speeds:
        measured = median_and_range(speed["steps_per_second"], 0)
        rows.append([speed["contender"], f"{speed['num_envs']:,}", measured])
    return table(rows)


@click.command(context_settings={"show_default": True})
@click.option(
    "--env", "env_id", type=click.Choice(list(PRESET_OF_ENV)), default=CARTPOLE, help="Environment."
)
@click.option("--seeds", type=click.IntRange(min=1), default=10, help="Number of seeds.")
@click.option("--first-seed", type=click.IntRange(min=0), default=0, help="The first seed.")
@click.option("--scaling", "only_scaling", is_flag=True, help="Only measure speed by num_envs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(env_id: str, seeds: int, first_seed: int, only_scaling: bool, as_json: bool) -> None:
    """Compare training speed; also writes benchmarks/results/training-<env>.csv and .png."""
    if only_scaling:
        speeds = scaling()
        click.echo(json.dumps(speeds) if as_json else scaling_table(speeds))
        return

    runs = []
    for seed in range(first_seed, first_seed + seeds):
        for run in run_seed(env_id, seed, full=seed < first_seed + FULL_SEEDS):
            runs.append(run)
            result = "passed" if run.passed else "did not pass"
            label = LABELS[run.contender]
            click.echo(f"seed {seed}  {label:37}  {result}, {run.seconds:.2f} s", err=True)
    RESULTS.mkdir(exist_ok=True)
    write_csv(runs, RESULTS / f"training-{env_id}.csv")
    if as_json:
        records = list(map(dataclasses.asdict, runs))
        click.echo(json.dumps({"environment": env_id, "runs": records, "ratios": ratios(runs)}))
    else:
        click.echo(f"{env_id}, our preset {PRESET_OF_ENV[env_id]}\n\n{report(runs)}")
    plot(runs, RESULTS / f"training-{env_id}.png")


if __name__ == "__main__":
    main()
