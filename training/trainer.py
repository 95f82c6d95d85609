"""The training loop, one rollout at a time: collect, estimate, update, evaluate, stop."""

import math
import time
from collections.abc import Callable

import numpy as np
from gymnasium.vector import VectorEnv

from training.advantages import make_batch
from training.config import TrainingConfig
from training.envs import make_shares
from training.errors import StopRequestedError
from training.evaluation import Evaluation
from training.evaluator import Evaluator
from training.finite import NotFiniteError
from training.learner import Learner, learning_rate
from training.model import Policy, initialize
from training.names import describe_with_names
from training.normalization import RewardScale, no_samples
from training.pushes import push_at_random, require_pushable
from training.rollout import Rollout, collect, reset
from training.selection import (
    Candidate,
    better,
    is_budget_spent,
    is_evaluation_due,
    is_search_over,
    reaches,
)
from training.shares import Shares, Workers
from training.state import Progress, Start, TrainingResult, TrainingState

GOLDEN_OBSERVATIONS = 16
RUNNING_RETURN_RATE = 0.01


class Trainer:
    """A run of training.

    Every random number comes from the seed: two runs on one machine are identical.

    Attributes:
        config: what is run.
        described: the environment.
        envs: copies of the environment, in which experience is collected.
        learner: the weights and the state of their optimiser.
        state: everything else that changes.
        reward_threshold: mean return from which the policy counts as solved, if any.
    """

    def __init__(
        self,
        config: TrainingConfig,
        seed: int,
        start: Start | None = None,
        *,
        workers: Workers | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
        announce: Callable[[str], None] = lambda _: None,
        found: Callable[[Policy], None] = lambda _: None,
    ) -> None:
        """Make the environments, draw the initial weights and compile the update.

        Args:
            config: what to run.
            seed: of everything random.
            start: what to continue from, instead of random weights.
            workers: what steps the environments, if not this process.
            stop_requested: called before each step of an evaluation; true ends it.
            announce: called with what the trainer does from now on: "training" or "evaluating".
            found: called with a policy that ends the run if it passes the endurance test, before
                that test.

        Raises:
            ConfigError: there are more or fewer names than numbers or actions, or the
                environment cannot be pushed.
            NotFiniteError: a first observation is NaN or infinite.
            UnsupportedEnvironmentError: see `training.envs`.
        """
        self.config, self._announce, self._found = config, announce, found
        rng = np.random.default_rng(seed)
        self.described = describe_with_names(
            config.environment, config.observation_names, config.action_names
        )
        self.reward_threshold = config.reward_threshold
        if self.reward_threshold is None:
            self.reward_threshold = self.described.reward_threshold
        require_pushable(config)
        # A rollout of whole episodes ends with the slowest environment, which may be in any share.
        self._workers = None if config.whole_episodes else workers
        self.envs = self._make_environments()
        self._evaluator = Evaluator(config, workers, stop_requested)
        size = len(self.described.observation_names)
        if start is None:
            actions = len(self.described.action_names)
            start = Start(initialize(rng, size, actions, config), no_samples(size))
        self.learner = Learner(config, start.weights)
        self.state = TrainingState(
            rng=rng,
            env_state=reset(self.envs, seed=int(rng.integers(2**31))),
            observation_moments=start.observation_moments,
            reward_scale=RewardScale(no_samples(), np.zeros(config.num_envs)),
            observation_low=np.full(size, np.inf, np.float32),
            observation_high=np.full(size, -np.inf, np.float32),
            sample_observations=np.empty((0, size), np.float32),
        )

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()
        self._evaluator.close()

    def policy(self) -> Policy:
        """The policy as it is now."""
        moments = self.state.observation_moments
        return Policy(
            self.learner.numpy_weights(),
            self.config.activation,
            moments.normalization() if self.config.normalize_observations else None,
        )

    def _make_environments(self, pickled: list[bytes] | None = None) -> Shares:
        config = self.config
        return make_shares(
            config.environment, config.num_envs, workers=self._workers, pickled=pickled
        )

    def restore_environments(self, pickled: list[bytes]) -> None:
        """Continue with the environments as they were stored."""
        self.envs.close()
        self.envs = self._make_environments(pickled)

    def restart_environments(self, seed: int | None = None) -> None:
        """Begin new episodes in all environments; environment `i` gets `seed + i`, if any."""
        state = self.state
        state.env_state = reset(self.envs, seed)
        state.reward_scale = state.reward_scale._replace(returns=np.zeros(self.config.num_envs))

    def extend(self) -> None:
        """Continue a run that ended unsolved with a smaller budget; otherwise do nothing."""
        state, result = self.state, self.state.result
        if result is None or is_budget_spent(self.config, state.env_steps, state.episodes):
            return
        if self.reward_threshold is None:
            state.best = Candidate(result.policy, result.greedy, result.sampled)
        elif result.solved:
            return
        state.result = None

    def step(self) -> Progress:
        """Collect one rollout and learn from it; evaluate if an evaluation is due.

        The run has ended when `state.result` is set.

        Raises:
            NotFiniteError: an observation, a reward or a loss is NaN or infinite.
            ReturnBoundsError: an evaluated return is outside the config's bounds.
            StopRequestedError: an evaluation was stopped; the next step begins with it.
        """
        state = self.state
        started = time.perf_counter()
        try:
            if state.unevaluated is None:
                state.unevaluated = self._learn()
            sampled, greedy = self._evaluate_where_due()
        finally:
            state.seconds += time.perf_counter() - started
        progress = state.unevaluated._replace(sampled=sampled, greedy=greedy)
        state.unevaluated = None
        return progress

    def _learn(self) -> Progress:
        config, state = self.config, self.state
        if config.normalize_observations and state.observation_moments.samples == 0:
            # The first rollout only measures the scale of the observations.
            self._collect(self.policy())
        policy = self.policy()
        rollout = self._collect(policy)
        if config.scale_rewards:
            rollout = rollout._replace(rewards=state.reward_scale.scale(rollout.rewards))
        batch, variance_explained = make_batch(config, policy, rollout)
        rate = learning_rate(config, state.env_steps)
        losses = self.learner.update(batch, rate, state.rng)
        for name, loss in losses._asdict().items():
            if not math.isfinite(loss):
                raise NotFiniteError(f"update {state.update + 1}: {name} is {loss}")
        state.update += 1
        return Progress(
            update=state.update,
            env_steps=state.env_steps,
            episodes=state.episodes,
            running_return=state.running_return,
            learning_rate=rate,
            losses=losses,
            explained_variance=variance_explained,
            sampled=None,
            greedy=None,
        )

    def _disturb(self, env: VectorEnv) -> None:
        push_at_random(env, self.config.push_standard_deviation, self.state.rng)

    def _collect(self, policy: Policy) -> Rollout:
        """Collect one rollout, and update the statistics of what was seen."""
        config, state = self.config, self.state
        if config.whole_episodes and state.env_steps > 0:
            self.restart_environments()
        try:
            rollout, state.env_state = collect(
                self.envs,
                state.env_state,
                policy,
                state.rng,
                config.num_steps,
                whole_episodes=config.whole_episodes,
                disturb=self._disturb if config.push_standard_deviation > 0 else None,
            )
        except NotFiniteError as error:
            raise NotFiniteError(f"after {state.env_steps} environment steps, {error}") from error
        state.env_steps += int(rollout.valid.sum())
        state.episodes += len(rollout.episode_returns)
        for episode_return in rollout.episode_returns:
            change = episode_return - state.running_return
            state.running_return += RUNNING_RETURN_RATE * change
        seen = rollout.observations[:-1][rollout.valid]
        state.observation_low = np.minimum(state.observation_low, seen.min(axis=0))
        state.observation_high = np.maximum(state.observation_high, seen.max(axis=0))
        state.sample_observations = seen[:: max(1, len(seen) // GOLDEN_OBSERVATIONS)]
        if config.normalize_observations:
            state.observation_moments = state.observation_moments.including(seen)
        if config.scale_rewards:
            ended = rollout.terminated | rollout.truncated
            state.reward_scale = state.reward_scale.including(
                rollout.rewards, ended, rollout.valid, config.gamma
            )
        return rollout

    def _evaluate_where_due(self) -> tuple[Evaluation | None, Evaluation | None]:
        """Evaluate, remember the best policy, and end the run when it is good enough.

        The greedy episodes are played only if the sampled ones reach the threshold: most
        evaluations of a run end before that, which saves half the time.
        """
        config, state, threshold = self.config, self.state, self.reward_threshold
        exhausted = is_budget_spent(config, state.env_steps, state.episodes)
        due = is_evaluation_due(config, threshold, state.update, state.running_return)
        if not exhausted and not due:
            return None, None

        before = state.rng.bit_generator.state
        self._evaluator.steps = 0
        self._announce("evaluating")
        try:
            policy = self.policy()
            evaluate = self._evaluator.evaluate
            sampled, greedy = evaluate(policy, state.rng, deterministic=False), None
            best = state.best
            if reaches(threshold, sampled.mean):
                greedy = evaluate(policy, state.rng, deterministic=True)
                if reaches(threshold, greedy.mean):
                    candidate = Candidate(policy, greedy, sampled)
                    if candidate.has_margin(threshold):
                        if is_search_over(config, candidate._replace(endured=True), 0):
                            self._found(policy)
                        candidate = self._evaluator.examine(candidate, state.rng)
                    best = better(best, candidate)
            passes = state.evaluations_since_pass + (best is not None and threshold is not None)
            if exhausted or is_search_over(config, best, passes):
                chosen = (policy, None) if best is None else (best.policy, best.endurance)
                state.result = self._result(*chosen, exhausted)
                best, passes = None, 0
        except StopRequestedError:
            # Undo the interrupted evaluation: the next step repeats it.
            state.rng.bit_generator.state = before
            raise
        state.evaluation_steps += self._evaluator.steps
        state.best, state.evaluations_since_pass = best, passes
        self._announce("training")
        return sampled, greedy

    def _result(
        self, chosen: Policy, endurance: Evaluation | None, exhausted: bool
    ) -> TrainingResult | None:
        """Evaluate the chosen policy on fresh episodes: a selected maximum is biased upwards.

        Returns:
            The result, or None if the run continues, because the policy fails and steps are left.
        """
        evaluate, rng = self._evaluator.evaluate, self.state.rng
        greedy = evaluate(chosen, rng, deterministic=True)
        sampled = evaluate(chosen, rng, deterministic=False, with_histograms=True)
        solved = reaches(self.reward_threshold, greedy.mean, sampled.mean)
        result = TrainingResult(chosen, solved, greedy, sampled, endurance)
        return result if solved or exhausted else None
