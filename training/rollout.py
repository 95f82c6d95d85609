"""Collecting experience with the current policy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from training.finite import finite_observations, require_finite
from training.model import Policy, sample_actions
from training.types import BoolArray, DoubleArray, FloatArray, IntArray


class EnvState(NamedTuple):
    """State of the environments between two rollouts."""

    observations: FloatArray  # [N, O]
    resetting: BoolArray  # [N], the next step only resets this environment
    returns: DoubleArray  # [N], rewards of the unfinished episode


class Rollout(NamedTuple):
    """`T` steps of `N` environments.

    Row `t + 1` of `observations` is the observation after step `t`: at an episode's end its
    final observation. Where `valid` is false the step is masked: it only reset the
    environment, or is padding at the end of a rollout of whole episodes.
    """

    observations: FloatArray  # [T + 1, N, O]
    actions: IntArray  # [T, N]
    rewards: FloatArray  # [T, N]
    terminated: BoolArray  # [T, N]
    truncated: BoolArray  # [T, N]
    valid: BoolArray  # [T, N]
    episode_returns: DoubleArray  # [E], of the episodes that ended, in order


def reset(env: VectorEnv, seed: int | None = None) -> EnvState:
    """Start a new episode in every environment.

    Raises:
        NotFiniteError: an observation is NaN or infinite.
    """
    observations, _ = env.reset(seed=seed)
    observations = finite_observations(observations, "reset")
    return EnvState(observations, np.zeros(env.num_envs, bool), np.zeros(env.num_envs))


def collect(
    env: VectorEnv,
    state: EnvState,
    policy: Policy,
    rng: np.random.Generator,
    num_steps: int,
    *,
    whole_episodes: bool = False,
    disturb: Callable[[VectorEnv], None] | None = None,
) -> tuple[Rollout, EnvState]:
    """Step the environments `num_steps` times with sampled actions.

    With `whole_episodes` it stops as soon as every environment has finished one episode,
    and the rest of the rollout is padding. `disturb` is called before each step.

    Raises:
        NotFiniteError: an observation or a reward is NaN or infinite.
    """
    num_envs = env.num_envs
    uniforms = rng.random((num_steps, num_envs), dtype=np.float32)
    observations = np.zeros((num_steps + 1, *state.observations.shape), np.float32)
    actions = np.zeros((num_steps, num_envs), np.int64)
    rewards = np.zeros((num_steps, num_envs), np.float32)
    terminated, truncated, valid = np.zeros((3, num_steps, num_envs), bool)
    episode_returns: list[float] = []
    observations[0], resetting, returns = state

    for t in range(num_steps):
        if disturb is not None:
            disturb(env)
        logits, _ = policy(observations[t])
        actions[t] = sample_actions(logits, uniforms[t])
        seen, gained, terminated[t], truncated[t], _ = env.step(actions[t])
        observations[t + 1] = finite_observations(seen, f"step {t + 1} of the rollout")
        require_finite(gained, "the reward", f"step {t + 1} of the rollout")
        rewards[t] = gained
        valid[t] = ~resetting
        returns = returns + rewards[t] * valid[t]
        ended = (terminated[t] | truncated[t]) & valid[t]
        if ended.any():
            episode_returns.extend(returns[ended])
            returns[ended] = 0.0
        resetting = resetting | ended if whole_episodes else ended
        if whole_episodes and resetting.all():
            break

    rollout = Rollout(
        observations, actions, rewards, terminated, truncated, valid, np.array(episode_returns)
    )
    return rollout, EnvState(observations[t + 1], resetting, returns)
