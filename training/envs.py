"""Gymnasium environments: which ones a policy can be learned on, and how they are made."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv


class UnsupportedEnvironmentError(ValueError):
    """The environment does not exist, cannot be made, or has spaces that are not supported."""


def make_vector_env(env_id: str, num_envs: int, max_episode_steps: int | None = None) -> VectorEnv:
    """Make `num_envs` copies of an environment, stepped together.

    `max_episode_steps` replaces the environment's own time limit, if given.

    Gymnasium's own vectorised implementation is used where there is one. Every environment
    made here resets on the step after an episode's end (`AutoresetMode.NEXT_STEP`): that
    step ignores its action, has reward 0 and returns the first observation of the next
    episode.

    Raises:
        UnsupportedEnvironmentError: no such environment, a dependency of it is missing, its
            observations are not a flat Box, or its actions are not Discrete from 0.
    """
    time_limit: dict[str, Any] = (
        {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    )
    try:
        with _without_deprecations():
            vectorised = gym.spec(env_id).vector_entry_point is not None
            env = gym.make_vec(
                env_id,
                num_envs=num_envs,
                vectorization_mode="vector_entry_point" if vectorised else "sync",
                **time_limit,
            )
    # An environment is third-party code and can raise anything: then it cannot be used.
    except Exception as error:
        raise UnsupportedEnvironmentError(f"{env_id} cannot be made: {error}") from error
    observation_space, action_space = env.single_observation_space, env.single_action_space
    if not (isinstance(observation_space, Box) and len(observation_space.shape) == 1):
        reason = f"observations are {observation_space}, a one-dimensional Box is needed"
    elif not (isinstance(action_space, Discrete) and action_space.start == 0):
        reason = f"actions are {action_space}, Discrete actions from 0 are needed"
    elif env.metadata["autoreset_mode"] is not AutoresetMode.NEXT_STEP:
        reason = "it does not reset on the step after an episode's end"
    else:
        return env
    env.close()
    raise UnsupportedEnvironmentError(f"{env_id} is not supported: {reason}")


def make_rendered_env(env_id: str) -> gym.Env[np.ndarray, np.int64]:
    """Make one environment that renders RGB arrays.

    Raises:
        Exception: whatever an environment that cannot be drawn raises.
    """
    with _without_deprecations():
        return gym.make(env_id, render_mode="rgb_array")


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Gymnasium warns that CartPole-v0 is out of date; a user who names it wants it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date")
        yield


def observation_size(env: VectorEnv) -> int:
    """Numbers in one observation (`O`)."""
    assert isinstance(env.single_observation_space, Box)
    return int(env.single_observation_space.shape[0])


def num_actions(env: VectorEnv) -> int:
    """Number of discrete actions (`A`)."""
    assert isinstance(env.single_action_space, Discrete)
    return int(env.single_action_space.n)


def reward_threshold(env: VectorEnv) -> float | None:
    """Mean return from which Gymnasium calls the environment solved, if it names one."""
    return None if env.spec is None else env.spec.reward_threshold


def observation_bounds(env: VectorEnv) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest observation that the environment declares, each `[O]`."""
    assert isinstance(env.single_observation_space, Box)
    return env.single_observation_space.low, env.single_observation_space.high
