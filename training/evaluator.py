"""The evaluations that a run makes of its policies while it learns."""

from collections.abc import Callable

import numpy as np

from training.config import TrainingConfig
from training.envs import make_shares
from training.errors import StopRequestedError
from training.evaluation import Evaluation, evaluate
from training.model import Policy
from training.robustness import LONG_EPISODES, evaluate_pushed, play_long_episodes
from training.selection import Candidate
from training.shares import Shares, Workers


class Evaluator:
    """Evaluates policies, in environments that are made at the first evaluation and kept.

    Each method takes a generator for the environments' seeds and the sampled actions, and raises
    `NotFiniteError`, `ReturnBoundsError` and `StopRequestedError` as `evaluate` does.

    Attributes:
        steps: environment steps of all evaluations since it was last set to 0.
    """

    def __init__(
        self, config: TrainingConfig, workers: Workers | None, stop_requested: Callable[[], bool]
    ) -> None:
        """Store the arguments; no environment is made yet.

        Args:
            config: of the run.
            workers: what steps the environments, if not this process.
            stop_requested: called before each step; true ends the evaluation.
        """
        self.steps = 0
        self._config, self._stop_requested = config, stop_requested
        self._workers = workers
        self._envs: Shares | None = None

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def evaluate(
        self,
        policy: Policy,
        rng: np.random.Generator,
        *,
        deterministic: bool,
        with_histograms: bool = False,
    ) -> Evaluation:
        """Play `evaluation_episodes` episodes."""
        environment, episodes = self._config.environment, self._config.evaluation_episodes
        if self._envs is None:
            self._envs = make_shares(environment, episodes, one_episode=True, workers=self._workers)
        try:
            evaluation = evaluate(
                policy,
                environment,
                episodes=episodes,
                deterministic=deterministic,
                rng=rng,
                return_bounds=self._config.return_bounds,
                with_histograms=with_histograms,
                envs=self._envs,
                stop_requested=self._stop_requested,
            )
        except StopRequestedError:
            self.close()
            raise
        return self._counted(evaluation)

    def examine(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Put a candidate with a margin through the endurance test, and then through pushes."""
        policy, limit = candidate.policy, self._config.endurance_steps
        environment = self._config.environment
        if limit is not None:
            endurance = self._counted(
                play_long_episodes(
                    policy, environment, limit, self._stop_requested, until_one_ends=True
                )
            )
            if endurance.steps < LONG_EPISODES * limit:
                return candidate
            candidate = candidate._replace(endurance=endurance)
        if self._config.push_standard_deviation > 0:
            pushed = evaluate_pushed(policy, environment, rng, self._stop_requested)
            candidate = candidate._replace(pushed=self._counted(pushed))
        return candidate._replace(endured=True)

    def _counted(self, evaluation: Evaluation) -> Evaluation:
        self.steps += evaluation.steps
        return evaluation
