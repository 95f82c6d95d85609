"""One trial of a search: runs with proposed hyperparameters, and their score."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import optuna

from training.config import ConfigError, TrainingConfig
from training.evaluation import evaluate
from training.finite import NotFiniteError
from training.search import POINTS, propose
from training.trainer import Trainer


def score(
    trial: optuna.Trial, config: TrainingConfig, searched: Sequence[str], seeds: int
) -> float:
    """Train with the hyperparameters that a trial proposes, for all seeds side by side.

    The score is the mean return of the last evaluation with sampled actions, averaged over all
    environment steps of the budget and over the seeds: the area under the learning curve. A run
    that ends early, because it is solved, keeps its last value for the rest. So a run that
    is solved sooner scores higher, and an unsolved one scores by how far it came.

    Args:
        trial: proposes values, and collects the score of each part of the budget.
        config: all other values.
        searched: the hyperparameters to propose.
        seeds: how many runs, with the seeds from 0.

    Raises:
        ConfigError: the environment cannot be pushed, which concerns all trials.
        TrialPruned: it is worse than others, the values are not possible together, or a number
            became NaN or infinite.
    """
    try:
        proposed = propose(config, searched, trial)
    except ConfigError as error:  # not a trainer's, which does not depend on the proposal
        raise _pruned(trial, error) from error
    scores: list[float] = []
    try:
        for one in scores_by_point(proposed, seeds):
            trial.report(one, len(scores))
            scores.append(one)
            if trial.should_prune():
                raise optuna.TrialPruned
    except NotFiniteError as error:
        raise _pruned(trial, error) from error
    return float(np.mean(scores))


def _pruned(trial: optuna.Trial, error: Exception) -> optuna.TrialPruned:
    trial.set_user_attr("reason", str(error))
    return optuna.TrialPruned(str(error))


def scores_by_point(config: TrainingConfig, seeds: int) -> Iterator[float]:
    """The score of each part of the budget, as soon as it is known: `POINTS` numbers.

    Raises:
        NotFiniteError: a number became NaN or infinite.
    """
    part = config.max_env_steps / POINTS
    with ExitStack() as stack:
        runs = []
        for seed in range(seeds):
            run = _Run(config, seed)
            stack.callback(run.trainer.close)
            runs.append(run)
        for point in range(POINTS):
            low, high = point * part, (point + 1) * part
            yield float(np.mean([run.mean_between(low, high) for run in runs]))


class _Run:
    """A run of training, and its learning curve."""

    def __init__(self, config: TrainingConfig, seed: int) -> None:
        # A run that waits for its running return would be scored as untrained until then.
        self.trainer = Trainer(replace(config, wait_for_running_return=False), seed)
        untrained = evaluate(
            self.trainer.policy(),
            config.environment,
            episodes=config.evaluation_episodes,
            deterministic=False,
            rng=np.random.default_rng(seed),
        )
        self.curve = [(0, untrained.mean)]  # environment steps, mean return

    def mean_between(self, low: float, high: float) -> float:
        """Train up to `high` environment steps; return the curve's mean from `low` to there."""
        state = self.trainer.state
        while state.result is None and state.env_steps < high:
            progress = self.trainer.step()
            if progress.sampled is not None:
                self.curve.append((progress.env_steps, progress.sampled.mean))
        return mean_between(self.curve, low, high)


def mean_between(curve: Sequence[tuple[int, float]], low: float, high: float) -> float:
    """The mean of a step function between two numbers of environment steps.

    Args:
        curve: numbers of environment steps, increasing from 0, each with the value from there
            to the next one; the last value holds for ever.
        low: where to begin.
        high: where to end, more than `low`.
    """
    area = 0.0
    for (start, value), (end, _) in itertools.pairwise([*curve, (math.inf, 0.0)]):
        area += value * max(0.0, min(end, high) - max(start, low))
    return area / (high - low)
