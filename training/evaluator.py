"""The evaluations that a run makes of its policies while it learns."""

from collections.abc import Callable

import numpy as np

from training.config import TrainingConfig
from training.envs import make_vector_env
from training.evaluation import Evaluation, evaluate
from training.model import Policy
from training.robustness import LONG_EPISODES, evaluate_pushed, play_long_episodes
from training.selection import Candidate


class Evaluator:
    """Evaluations of policies, in environments that are made once.

    Each takes a generator of the environments' seeds and the sampled actions, and raises
    `NotFiniteError`, `ReturnBoundsError` and `StopRequestedError` as `evaluate` does.

    Attributes:
        steps: of the environments, in all evaluations.
    """

    def __init__(
        self, config: TrainingConfig, env_workers: int, stop_requested: Callable[[], bool]
    ) -> None:
        """Make the environments.

        Args:
            config: of the run.
            env_workers: processes that step them, see `make_vector_env`.
            stop_requested: asked before each step.
        """
        self.steps = 0
        self._config, self._stop_requested = config, stop_requested
        self._env = make_vector_env(
            config.environment, config.evaluation_episodes, one_episode=True, workers=env_workers
        )

    def close(self) -> None:
        """Close the environments."""
        self._env.close()

    def evaluate(
        self, policy: Policy, rng: np.random.Generator, *, deterministic: bool
    ) -> Evaluation:
        """Play `evaluation_episodes` episodes."""
        return self._counted(
            evaluate(
                policy,
                self._config.environment,
                episodes=self._config.evaluation_episodes,
                deterministic=deterministic,
                rng=rng,
                return_bounds=self._config.return_bounds,
                env=self._env,
                stop_requested=self._stop_requested,
            )
        )

    def examine(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Find out whether a candidate with a margin endures, and then withstands pushes."""
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
