"""When a run evaluates, which of its policies it keeps, and when it stops."""

import math
from typing import NamedTuple

from training.config import TrainingConfig
from training.evaluation import Evaluation
from training.model import Policy


class Candidate(NamedTuple):
    """A policy that reached the threshold, if there is one, and its evaluations."""

    policy: Policy
    greedy: Evaluation
    sampled: Evaluation
    pushed: Evaluation | None = None  # where it is selected by that, and has a margin

    def score(self) -> tuple[float, float]:
        """Under pushes, and else the worse of both means: serving offers both ways to act."""
        pushed = -math.inf if self.pushed is None else self.pushed.mean
        return pushed, min(self.greedy.mean, self.sampled.mean)

    def has_margin(self, threshold: float | None) -> bool:
        """Whether every evaluated episode reaches the threshold, and not the means alone."""
        return threshold is not None and reaches(
            threshold, self.greedy.minimum, self.sampled.minimum
        )


def better(best: Candidate | None, candidate: Candidate) -> Candidate:
    """The one with the larger score, the later of equals."""
    return candidate if best is None or candidate.score() >= best.score() else best


def reaches(threshold: float | None, *returns: float) -> bool:
    """Whether all returns reach the threshold; without one, any returns do."""
    return threshold is None or min(returns) >= threshold


def is_budget_spent(config: TrainingConfig, env_steps: int, episodes: int) -> bool:
    """Whether a run has used up its budget."""
    return env_steps >= config.max_env_steps or (
        config.max_episodes is not None and episodes >= config.max_episodes
    )


def is_patience_spent(config: TrainingConfig, evaluations_since_pass: int) -> bool:
    """Whether a run has searched long enough for a policy with a margin.

    One that is pushed takes all of its budget.

    Args:
        config: of the run.
        evaluations_since_pass: the first that reached the threshold is one of them.
    """
    return config.push_standard_deviation == 0 and evaluations_since_pass > config.patience


def is_evaluation_due(
    config: TrainingConfig, threshold: float | None, update: int, running_return: float
) -> bool:
    """Whether an evaluation is due after an update, whatever is left of the budget."""
    below = threshold is not None and running_return <= threshold
    return (
        not (config.wait_for_running_return and below) and update % config.evaluation_interval == 0
    )
