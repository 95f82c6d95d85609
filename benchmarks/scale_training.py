"""How much Ray workers speed up a slow simulator, and a model that predicts more of them.

    python -m benchmarks.scale_training [--rollouts 5]

A rollout is 32 steps of 16 environments that take 5 ms a step, stepped in this process and in 1, 2
and 4 Ray actors of this machine. The model of a rollout in W actors is

    32 * ceil(16 / W) * step + 32 * 16 * row + call + W * actor + learn

where `step` is the time of a step, measured in an environment alone, and `row` that of the policy
for one observation: every actor computes it for all environments. `learn` is that of the update,
and `call` and `actor` are what Ray adds, measured with a simulator that takes no time. The model is
checked against the measurements: the exit status is 1 if it is wrong by more than 15%.
"""

import dataclasses
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import click
import numpy as np

from benchmarks.common import table
from training.config import Environment, TrainingConfig
from training.envs import make_env
from training.model import Policy, initialize
from training.presets import PRESETS
from training.ray_cluster import Cluster, connect
from training.shares import Workers
from training.trainer import Trainer

ENV_ID = "benchmarks.simulator:Simulator-v0"
STEP_SECONDS = 0.005
NUM_ENVS = 16
NUM_STEPS = 32
WORKERS = (1, 2, 4)
CORES = (10, 1_000, 100_000)
TOLERANCE = 0.15


class Model(NamedTuple):
    """The parts of a rollout, in seconds."""

    step: float  # of one environment
    call: float  # of Ray, for a rollout
    actor: float  # of Ray, for each actor
    learn: float  # for `NUM_ENVS` environments
    row: float  # of the policy, for each environment and step

    def parts(self, num_envs: int, workers: int) -> dict[str, float]:
        """The parts of a rollout, in seconds; 0 workers means this process."""
        return {
            "stepping": NUM_STEPS * math.ceil(num_envs / max(workers, 1)) * self.step,
            "acting": NUM_STEPS * num_envs * self.row,
            "Ray": self.call + self.actor * workers if workers else 0.0,
            "learning": self.learn * num_envs / NUM_ENVS,
        }

    def rollout(self, num_envs: int, workers: int) -> float:
        """The seconds of a rollout."""
        return sum(self.parts(num_envs, workers).values())


def config(seconds: float) -> TrainingConfig:
    """A run that collects and learns, and evaluates nothing."""
    return dataclasses.replace(
        PRESETS["ppo"],
        env_id=ENV_ID,
        env_kwargs={"seconds": seconds},
        num_envs=NUM_ENVS,
        num_steps=NUM_STEPS,
        evaluation_interval=10**6,
        max_env_steps=10**9,
        return_bounds=None,
        endurance_steps=None,
    )


def rollout_seconds(seconds: float, workers: Workers | None, rollouts: int) -> list[float]:
    """Collect and learn from some rollouts, after a first one that is not counted."""
    measured = []
    with closing(Trainer(config(seconds), seed=0, workers=workers)) as trainer:
        for _ in range(rollouts + 1):
            began = time.perf_counter()
            trainer.step()
            measured.append(time.perf_counter() - began)
    return measured[1:]


def step_seconds(seconds: float) -> float:
    """The median time of a step of one environment."""
    measured = []
    with closing(make_env(Environment(ENV_ID, {"seconds": seconds}))) as env:
        env.reset(seed=0)
        for _ in range(150):
            began = time.perf_counter()
            env.step(0)
            measured.append(time.perf_counter() - began)
    return statistics.median(measured)


def policy_row_seconds() -> float:
    """The time of the policy for one more environment and step."""
    seconds = {}
    policy = Policy(initialize(np.random.default_rng(0), 4, 2, config(0.0)), "tanh")
    for rows in (1_000, 11_000):
        observations = np.zeros((rows, 4), np.float32)
        measured = []
        for _ in range(20):
            began = time.perf_counter()
            policy(observations)
            measured.append(time.perf_counter() - began)
        seconds[rows] = statistics.median(measured)
    return (seconds[11_000] - seconds[1_000]) / 10_000


def fit(instant: dict[int, float], step: float, instant_step: float, row: float) -> Model:
    """Fit a model to rollouts of a simulator that takes no time, by the number of workers.

    0 workers means this process, whose rollout is only stepping and learning. What workers add to
    that is fitted by a line.
    """
    without = Model(instant_step, 0.0, 0.0, 0.0, row)
    learn = instant[0] - without.rollout(NUM_ENVS, 0)
    added = {
        workers: seconds - learn - without.rollout(NUM_ENVS, workers)
        for workers, seconds in instant.items()
        if workers > 0
    }
    actor, call = np.polyfit(list(added), list(added.values()), 1)
    return Model(step, float(call), float(actor), learn, row)


@contextmanager
def local_cluster() -> Iterator[Cluster]:
    """A cluster of this machine, whose actors find this module's environment."""
    paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    os.environ["PYTHONPATH"] = paths
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with connect("local") as cluster:
        yield cluster


@click.command(context_settings={"show_default": True})
@click.option("--rollouts", type=click.IntRange(min=1), default=5, help="Of each measurement.")
def main(rollouts: int) -> None:
    """Measure rollouts, fit the model to their parts and compare; then ask it about more cores."""
    instant, slow = {}, {}
    with local_cluster() as cluster:
        for count in (0, *WORKERS):
            workers = cluster.workers(count, storable=True) if count else None
            instant[count] = statistics.median(rollout_seconds(0.0, workers, 5 * rollouts))
            slow[count] = statistics.median(rollout_seconds(STEP_SECONDS, workers, rollouts))
    model = fit(instant, step_seconds(STEP_SECONDS), step_seconds(0.0), policy_row_seconds())
    parts = ", ".join(f"{name} {1e6 * value:,.1f} us" for name, value in model._asdict().items())
    click.echo(f"{parts}\n")

    rows = [["workers", "seconds a rollout", "of the model", "difference", "steps/s"]]
    errors = []
    for count, seconds in slow.items():
        predicted = model.rollout(NUM_ENVS, count)
        errors.append(predicted / seconds - 1)
        name = str(count) if count else "this process"
        speed = f"{NUM_ENVS * NUM_STEPS / seconds:,.0f}"
        rows.append([name, f"{seconds:.3f}", f"{predicted:.3f}", f"{errors[-1]:+.1%}", speed])
    click.echo(table(rows))

    rows = [["cores", "seconds a rollout", "stepping", "acting", "Ray", "learning", "steps/s"]]
    for cores in CORES:  # a worker and an environment on each
        whole, parts_of = model.rollout(cores, cores), model.parts(cores, cores)
        shares = [f"{part / whole:.0%}" for part in parts_of.values()]
        rows.append([f"{cores:,}", f"{whole:.2f}", *shares, f"{NUM_STEPS * cores / whole:,.0f}"])
    click.echo(f"\n{table(rows)}")
    as_long = NUM_STEPS * model.step / model.actor
    click.echo(f"Ray takes as long as the simulators with {as_long:.0f} actors")
    if max(map(abs, errors)) > TOLERANCE:
        sys.exit(f"the model is wrong by more than {TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
