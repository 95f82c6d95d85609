"""The training loop, one rollout at a time: collect, estimate, update, evaluate, stop."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from training import envs
from training.advantages import make_batch
from training.config import TrainingConfig
from training.evaluation import Evaluation, evaluate
from training.learner import Learner, Losses
from training.model import Policy, initialize
from training.rollout import EnvState, Rollout, collect, reset
from training.selection import (
    Candidate,
    better,
    is_budget_spent,
    is_evaluation_due,
    is_patience_spent,
    reaches,
)
from training.types import FloatArray

GOLDEN_OBSERVATIONS = 16
ENDURANCE_EPISODES = 20
RUNNING_RETURN_RATE = 0.01


class Progress(NamedTuple):
    """Counts, metrics and evaluations of one update."""

    update: int  # from 1
    env_steps: int
    episodes: int
    running_return: float  # exponential moving average of episode returns, from 0
    learning_rate: float
    losses: Losses
    explained_variance: float
    sampled: Evaluation | None  # where this update was followed by an evaluation
    greedy: Evaluation | None  # where the sampled one reached the threshold


class TrainingResult(NamedTuple):
    """The policy that a run chose, and its evaluations on fresh episodes."""

    policy: Policy
    solved: bool  # both evaluations reach the environment's threshold
    greedy: Evaluation
    sampled: Evaluation


@dataclass(slots=True)
class TrainingState:
    """The state of a run besides the learner's variables: all that it takes to resume exactly."""

    rng: np.random.Generator  # of everything but the environments, which have their own
    env: VectorEnv
    env_state: EnvState
    observation_low: FloatArray  # [O], smallest of each number seen
    observation_high: FloatArray  # [O], largest
    sample_observations: FloatArray  # [S, O], some of those last seen
    update: int = 0
    env_steps: int = 0
    episodes: int = 0
    running_return: float = 0.0
    best: Candidate | None = None
    evaluations_since_pass: int = 0
    result: TrainingResult | None = None
    seconds: float = 0.0


class Trainer:
    """A run of training.

    Every random number comes from the seed: two runs on one machine are identical.

    Attributes:
        config: what is run.
        learner: the weights and the state of their optimiser.
        state: everything else that changes.
        reward_threshold: mean return from which the environment counts as solved, if any.
    """

    def __init__(self, config: TrainingConfig, seed: int) -> None:
        """Make the environments, draw the first weights and compile the update.

        Raises:
            UnsupportedEnvironmentError: see `training.envs`.
        """
        self.config = config
        rng = np.random.default_rng(seed)
        env = envs.make_vector_env(config.env_id, config.num_envs)
        self.reward_threshold = envs.reward_threshold(env)
        size, actions = envs.observation_size(env), envs.num_actions(env)
        self.learner = Learner(
            config, initialize(rng, size, actions, config.hidden_units, config.initializer)
        )
        self.state = TrainingState(
            rng=rng,
            env=env,
            env_state=reset(env, seed=int(rng.integers(2**31))),
            observation_low=np.full(size, np.inf, np.float32),
            observation_high=np.full(size, -np.inf, np.float32),
            sample_observations=np.empty((0, size), np.float32),
        )

    def policy(self) -> Policy:
        """The policy as it is now."""
        return Policy(self.learner.numpy_weights(), self.config.activation)

    def step(self) -> Progress:
        """Collect one rollout and learn from it; evaluate if an evaluation is due.

        The run has ended when `state.result` is set.
        """
        config, state = self.config, self.state
        started = time.perf_counter()
        policy = self.policy()
        if config.whole_episodes and state.update > 0:
            state.env_state = reset(state.env)
        rollout, state.env_state = collect(
            state.env,
            state.env_state,
            policy,
            state.rng,
            config.num_steps,
            whole_episodes=config.whole_episodes,
        )
        self._count(rollout)
        batch, variance_explained = make_batch(config, policy, rollout)
        losses = self.learner.update(batch, config.learning_rate, state.rng)
        state.update += 1
        sampled, greedy = self._evaluate_where_due()
        state.seconds += time.perf_counter() - started
        return Progress(
            update=state.update,
            env_steps=state.env_steps,
            episodes=state.episodes,
            running_return=state.running_return,
            learning_rate=config.learning_rate,
            losses=losses,
            explained_variance=variance_explained,
            sampled=sampled,
            greedy=greedy,
        )

    def _count(self, rollout: Rollout) -> None:
        state = self.state
        state.env_steps += int(rollout.valid.sum())
        state.episodes += len(rollout.episode_returns)
        for episode_return in rollout.episode_returns:
            change = episode_return - state.running_return
            state.running_return += RUNNING_RETURN_RATE * change
        seen = rollout.observations[:-1][rollout.valid]
        state.observation_low = np.minimum(state.observation_low, seen.min(axis=0))
        state.observation_high = np.maximum(state.observation_high, seen.max(axis=0))
        state.sample_observations = seen[:: max(1, len(seen) // GOLDEN_OBSERVATIONS)]

    def _evaluate_where_due(self) -> tuple[Evaluation | None, Evaluation | None]:
        """Evaluate, remember the best policy, and end the run when it is good enough.

        The greedy episodes are played only if the sampled ones reach the threshold. In most
        evaluations of a run they do not, which saves half the time.
        """
        config, state, threshold = self.config, self.state, self.reward_threshold
        exhausted = is_budget_spent(config, state.env_steps, state.episodes)
        due = is_evaluation_due(config, threshold, state.update, state.running_return)
        if not exhausted and not due:
            return None, None

        policy = self.policy()
        sampled, greedy = self._evaluate(policy, deterministic=False), None
        with_margin = False
        if reaches(threshold, sampled.mean):
            greedy = self._evaluate(policy, deterministic=True)
            if reaches(threshold, greedy.mean):
                candidate = Candidate(policy, greedy, sampled)
                with_margin = candidate.has_margin(threshold) and self._endures(policy)
                state.best = candidate if with_margin else better(state.best, candidate)
        if state.best is not None:
            state.evaluations_since_pass += 1
        out_of_patience = is_patience_spent(config, state.evaluations_since_pass)
        if exhausted or with_margin or out_of_patience:
            self._end(policy, exhausted=exhausted)
        return sampled, greedy

    def _endures(self, policy: Policy) -> bool:
        limit = self.config.endurance_steps
        if limit is None:
            return True
        endurance = evaluate(
            policy,
            self.config.env_id,
            episodes=ENDURANCE_EPISODES,
            deterministic=True,
            rng=self.state.rng,
            max_episode_steps=limit,
        )
        return endurance.minimum >= limit

    def _end(self, policy: Policy, *, exhausted: bool) -> None:
        """Re-evaluate the best policy on fresh episodes: a selected maximum is biased upwards."""
        state, threshold = self.state, self.reward_threshold
        chosen = policy if state.best is None else state.best.policy
        greedy = self._evaluate(chosen, deterministic=True)
        sampled = self._evaluate(chosen, deterministic=False)
        solved = reaches(threshold, greedy.mean, sampled.mean)
        if solved or exhausted:
            state.result = TrainingResult(chosen, solved, greedy, sampled)
        state.best, state.evaluations_since_pass = None, 0

    def _evaluate(self, policy: Policy, *, deterministic: bool) -> Evaluation:
        return evaluate(
            policy,
            self.config.env_id,
            episodes=self.config.evaluation_episodes,
            deterministic=deterministic,
            rng=self.state.rng,
            return_bounds=self.config.return_bounds,
        )
