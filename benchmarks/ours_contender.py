"""One run of a preset of this project, or a measurement of the default preset's speed.

    python -m benchmarks.ours_contender first-pass PRESET SEED ENV_WORKERS
    python -m benchmarks.ours_contender speed NUM_ENVS

The result is one JSON object on standard output; `benchmarks/training_report.py` defines its
fields.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from training import evaluator as evaluator_module
from training import trainer as trainer_module
from training.config import Environment
from training.envs import describe
from training.evaluation import Evaluation, evaluate
from training.presets import PRESETS, Preset
from training.rollout import EnvState, reset
from training.shares import Processes
from training.trainer import Trainer

SPEED_SECONDS = 4.0
UNREACHED = 10**12


class FirstPass(Exception):  # noqa: N818 - it ends a run, but is not an error
    """An evaluation reached the threshold, greedy and sampled."""


class TimedEvaluations:
    """Replaces `evaluate`, and raises `FirstPass` at the end of the first pass.

    Attributes:
        seconds: of all evaluations.
        stopped: when the last one ended.
        passed: whether it reached the threshold.
        means: mean return of the last evaluated policy, by `deterministic`.
    """

    def __init__(self, reward_threshold: float) -> None:
        self._reward_threshold = reward_threshold
        self.seconds = self.stopped = 0.0
        self.passed = False
        self.means: dict[bool, float] = {}
        self._policy: object = None

    def __call__(self, policy: Any, environment: Environment, **options: Any) -> Evaluation:
        """See `training.evaluation.evaluate`."""
        started = time.perf_counter()
        evaluation = evaluate(policy, environment, **options)
        self.stopped = time.perf_counter()
        self.seconds += self.stopped - started
        if policy is not self._policy:
            self._policy, self.means = policy, {}
        self.means[options["deterministic"]] = evaluation.mean
        self.passed = len(self.means) == 2 and min(self.means.values()) >= self._reward_threshold
        if self.passed:
            raise FirstPass
        return evaluation


def first_pass(preset: str, seed: str, env_workers: str) -> dict[str, Any]:
    """Train until the first pass or the end of the budget."""
    config = PRESETS[cast(Preset, preset)]
    reward_threshold = describe(config.environment).reward_threshold
    assert reward_threshold is not None
    evaluations = TimedEvaluations(reward_threshold)
    resets: list[float] = []

    def timed_reset(*arguments: Any, **options: Any) -> EnvState:
        resets.append(time.perf_counter())
        return reset(*arguments, **options)

    workers = Processes(int(env_workers)) if int(env_workers) else None
    began = time.perf_counter()
    with (
        mock.patch.object(evaluator_module, "evaluate", evaluations),
        mock.patch.object(trainer_module, "reset", timed_reset),
        contextlib.closing(Trainer(config, int(seed), workers=workers)) as trainer,
        contextlib.suppress(FirstPass),
    ):
        while trainer.state.result is None:
            trainer.step()
    seconds = evaluations.stopped - resets[0]
    return {
        "passed": evaluations.passed,
        "env_steps": trainer.state.env_steps,
        "setup_seconds": resets[0] - began,
        "seconds": seconds,
        "learning_seconds": seconds - evaluations.seconds,
        "greedy": evaluations.means.get(True),
        "sampled": evaluations.means[False],
    }


def speed(num_envs: str) -> dict[str, Any]:
    """Learn for `SPEED_SECONDS` or one update, whichever is longer, without evaluations."""
    config = dataclasses.replace(
        PRESETS["ppo"],
        num_envs=int(num_envs),
        num_steps=32,
        max_env_steps=UNREACHED,
        evaluation_interval=UNREACHED,
    )
    trainer = Trainer(config, seed=0)
    trainer.step()  # the first update is slower
    first_steps, started, seconds = trainer.state.env_steps, time.perf_counter(), 0.0
    while seconds < SPEED_SECONDS:
        trainer.step()
        seconds = time.perf_counter() - started
    return {"steps_per_second": (trainer.state.env_steps - first_steps) / seconds}


if __name__ == "__main__":
    measure: dict[str, Callable[..., dict[str, Any]]] = {"first-pass": first_pass, "speed": speed}
    json.dump(measure[sys.argv[1]](*sys.argv[2:]), sys.stdout)
