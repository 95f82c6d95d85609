"""Collecting experience with the current policy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from training.finite import finite_float32
from training.model import Policy, sample_actions
from training.shares import Shares
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


def reset(envs: Shares, seed: int | None = None) -> EnvState:
    """Start a new episode in every environment; environment `i` gets `seed + i`.

    Raises:
        NotFiniteError: an observation is NaN or infinite.
    """
    first = np.concatenate(envs.call(_reset, seed))
    observations = finite_float32(first, "an observation", "reset")
    return EnvState(observations, np.zeros(envs.num_envs, bool), np.zeros(envs.num_envs))


def collect(
    envs: Shares,
    state: EnvState,
    policy: Policy,
    rng: np.random.Generator,
    num_steps: int,
    *,
    whole_episodes: bool = False,
    disturb: Callable[[VectorEnv], None] | None = None,
) -> tuple[Rollout, EnvState]:
    """Step the environments `num_steps` times with sampled actions.

    With `whole_episodes` a share stops as soon as each of its environments has finished one
    episode, and the rest of the rollout is padding. `disturb` is called before each step. At least
    one row is valid: a rollout that only resets environments is replaced by the next one.

    Raises:
        NotFiniteError: an observation or a reward is NaN or infinite.
    """
    uniforms = rng.random((num_steps, envs.num_envs), dtype=np.float32)
    parts = envs.call(_collect, state, policy, uniforms, whole_episodes, disturb)
    rows, last, resetting = zip(*parts, strict=True)
    merged = (np.concatenate(arrays, axis=1) for arrays in zip(*rows, strict=True))
    observations, actions, rewards, terminated, truncated, valid = merged
    ended = (terminated | truncated) & valid
    counted, episode_returns = rewards * valid, []
    returns = state.returns
    for t, any_ended in enumerate(ended.any(axis=1).tolist()):
        returns = returns + counted[t]
        if any_ended:
            episode_returns.extend(returns[ended[t]])
            returns[ended[t]] = 0.0
    rollout = Rollout(
        observations, actions, rewards, terminated, truncated, valid, np.array(episode_returns)
    )
    after = EnvState(np.concatenate(last), np.concatenate(resetting), returns)
    if not valid.any():
        return collect(envs, after, policy, rng, num_steps, disturb=disturb)
    return rollout, after


def _reset(
    env: VectorEnv, own: slice, seed: int | None, _stop_requested: Callable[[], bool]
) -> Any:
    return env.reset(seed=None if seed is None else seed + own.start)[0]


def _collect(
    env: VectorEnv,
    own: slice,
    state: EnvState,
    policy: Policy,
    uniforms: FloatArray,
    whole_episodes: bool,
    disturb: Callable[[VectorEnv], None] | None,
    _stop_requested: Callable[[], bool],
) -> tuple[tuple[Any, ...], FloatArray, BoolArray]:
    """Step a share; return its part of a rollout's first six fields and of the state after it."""
    num_steps, num_envs = uniforms.shape
    # The rows of other shares are zero. The policy gets them all the same, so that its result for
    # a row does not depend, even in the last bit, on how the environments are split.
    observations = np.zeros((num_steps + 1, *state.observations.shape), np.float32)
    actions = np.zeros((num_steps, num_envs), np.int64)
    rewards = np.zeros((num_steps, env.num_envs), np.float32)
    terminated, truncated, valid = np.zeros((3, num_steps, env.num_envs), bool)
    observations[0, own], resetting = state.observations[own], state.resetting[own]

    for t in range(num_steps):
        if disturb is not None:
            disturb(env)
        logits, _ = policy(observations[t])
        actions[t] = sample_actions(logits, uniforms[t])
        seen, gained, terminated[t], truncated[t], _ = env.step(actions[t, own])
        when = f"step {t + 1} of the rollout"
        observations[t + 1, own] = finite_float32(seen, "an observation", when, own.start)
        rewards[t] = finite_float32(gained, "the reward", when, own.start)
        valid[t] = ~resetting
        ended = (terminated[t] | truncated[t]) & valid[t]
        resetting = resetting | ended if whole_episodes else ended
        if whole_episodes and resetting.all():
            break

    rows = observations[:, own], actions[:, own], rewards, terminated, truncated, valid
    return rows, observations[t + 1, own], resetting
