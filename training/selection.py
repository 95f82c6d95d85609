"""When a run evaluates, which of its policies it keeps, and when it stops."""

from typing import NamedTuple

from training.config import TrainingConfig
from training.evaluation import Evaluation
from training.model import Policy


class Candidate(NamedTuple):
    """A policy that reached the threshold, if there is one, and its evaluations."""

    policy: Policy
    greedy: Evaluation
    sampled: Evaluation
    endured: bool = False  # it has a margin, and passed the endurance test if there is one
    endurance: Evaluation | None = None  # that test, where it was passed
    pushed: Evaluation | None = None  # if candidates that endured are compared under pushes

    def score(self) -> tuple[bool, float, float]:
        """Candidates that endured rank first, then those that withstand pushes longest.

        The worse of both means decides between equals: serving offers both ways to act.
        """
        pushed = 0.0 if self.pushed is None else self.pushed.mean
        return self.endured, pushed, min(self.greedy.mean, self.sampled.mean)

    def has_margin(self, threshold: float | None) -> bool:
        """Whether every evaluated episode reaches the threshold, not only the means."""
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


def is_search_over(
    config: TrainingConfig, best: Candidate | None, evaluations_since_pass: int
) -> bool:
    """Whether a run can stop searching for a better policy, whatever is left of the budget.

    Args:
        config: of the run; one that compares candidates under pushes uses its whole budget.
        best: the best policy so far that reached the threshold, if there is one.
        evaluations_since_pass: includes the first that reached the threshold.
    """
    if config.push_standard_deviation > 0:
        return False
    return (best is not None and best.endured) or evaluations_since_pass > config.patience


def is_evaluation_due(
    config: TrainingConfig, threshold: float | None, update: int, running_return: float
) -> bool:
    """Whether an evaluation is due after an update, whatever is left of the budget."""
    below = threshold is not None and running_return <= threshold
    return (
        not (config.wait_for_running_return and below) and update % config.evaluation_interval == 0
    )
