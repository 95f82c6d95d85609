"""Gymnasium environments: how they are made, one or many, with flat observations."""

import copy
import importlib
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import (
    FlattenObservation,
    NormalizeObservation,
    NormalizeReward,
    TransformAction,
)

from training.config import Environment
from training.errors import TrainingError
from training.shares import Maker, OneShare, Shares, Workers
from training.spaces import is_flat, observation_names, reason_against
from training.types import DoubleArray

# Wrappers with running statistics, which would be lost after training, and what replaces them.
_INSTEAD_OF = {
    NormalizeObservation: "--normalize-observations",
    NormalizeReward: "--scale-rewards",
}


class UnsupportedEnvironmentError(TrainingError):
    """The environment does not exist, cannot be made, or has spaces that are not supported."""


class Description(NamedTuple):
    """What is known of an environment before it is stepped."""

    observation_names: list[str]  # [O]
    low: DoubleArray  # [O], the lowest observation that it declares
    high: DoubleArray  # [O]
    action_names: list[str]  # [A]
    action_start: int  # the environment's own number for its first action
    made_by: type[Any]  # its class, or that of a wrapper that changes observations or actions
    max_episode_steps: int | None
    reward_threshold: float | None  # mean return from which Gymnasium calls it solved


def make_env(environment: Environment, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make one environment with flat observations and actions from 0.

    Raises:
        UnsupportedEnvironmentError: no such environment, a dependency of it is missing, a wrapper
            keeps running statistics, or its spaces are not supported (see `training.spaces`).
    """
    env = _make_as_it_is(environment, render_mode)
    if isinstance(env.action_space, Discrete) and env.action_space.start != 0:
        start, actions = env.action_space.start, Discrete(env.action_space.n)
        env = TransformAction(env, lambda action: action + start, actions)
    return env if is_flat(env.observation_space) else FlattenObservation(env)


class OneEpisode(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that stands still once its episode has ended, until a reset with a seed."""

    ended = False
    _last: Any  # observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, but ignore a vector environment's autoreset, which has no seed."""
        if self.ended and seed is None:
            return self._last, {}
        self.ended = False
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, or none if the episode has ended."""
        if self.ended:
            return self._last, 0.0, False, False, {}
        self._last, reward, terminated, truncated, info = super().step(action)
        self.ended = terminated or truncated
        return self._last, reward, terminated, truncated, info


def make_vector_env(
    environment: Environment, num_envs: int, *, one_episode: bool = False
) -> VectorEnv[Any, Any, Any]:
    """Make `num_envs` copies of an environment, stepped together.

    Gymnasium's own vectorised implementation is used where there is one. Every environment
    made here resets on the step after an episode's end (`AutoresetMode.NEXT_STEP`): that
    step ignores its action, has reward 0 and returns the first observation of the next
    episode.

    Args:
        environment: what is made.
        num_envs: how many.
        one_episode: whether only the first episode after a reset counts; environments that are
            stepped one after another then play no other.

    Raises:
        UnsupportedEnvironmentError: see `make_env`.
    """
    vectorised = _vectorised(environment, num_envs)
    if vectorised is not None:
        return vectorised

    def make() -> gym.Env[Any, Any]:
        env = make_env(environment)
        return OneEpisode(env) if one_episode else env

    return SyncVectorEnv([make] * num_envs)


def make_shares(
    environment: Environment,
    num_envs: int,
    *,
    one_episode: bool = False,
    workers: Workers | None = None,
    pickled: list[bytes] | None = None,
) -> Shares:
    """Make `num_envs` copies of an environment, see `make_vector_env`.

    Args:
        environment: what is made.
        num_envs: how many.
        one_episode: whether only the first episode after a reset counts.
        workers: what steps the shares, unless Gymnasium has a vectorised implementation.
        pickled: the stored environments of each share, to continue with.

    Raises:
        UnsupportedEnvironmentError: see `make_env`.
    """
    if workers is not None and is_vectorised(environment):
        workers = None
    count = 1 if workers is None else min(workers.count, num_envs)
    sizes = [len(share) for share in np.array_split(range(num_envs), count)]
    # A `MappingProxyType` cannot be pickled for a worker.
    environment = environment._replace(kwargs=dict(environment.kwargs))
    make = partial(make_vector_env, environment, one_episode=one_episode)
    makers: list[Maker] = [partial(make, size) for size in sizes]
    if pickled is not None:
        makers = [partial(cloudpickle.loads, share) for share in pickled]
    if workers is None:
        return OneShare(makers[0]())
    return workers.start(sizes, makers, one_episode=one_episode)


def is_vectorised(environment: Environment) -> bool:
    """Whether Gymnasium has its own vectorised implementation of this very environment."""
    env = _vectorised(environment, 1)
    if env is not None:
        env.close()
    return env is not None


def _vectorised(environment: Environment, num_envs: int) -> VectorEnv[Any, Any, Any] | None:
    """Gymnasium's own vectorised implementation, if it has one of this very environment."""
    if environment.kwargs or environment.wrappers:
        return None
    with closing(make_env(environment)) as single, _quiet():
        spec, spaces = single.spec, (single.observation_space, single.action_space)
        if spec is None or spec.vector_entry_point is None or spec.additional_wrappers:
            return None
        env = gym.make_vec(
            environment.id,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            **_time_limit(environment),
        )
    same_spaces = (env.single_observation_space, env.single_action_space) == spaces
    if same_spaces and env.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
        return env
    env.close()
    return None


def describe(environment: Environment) -> Description:
    """Make an environment once to describe it.

    Raises:
        UnsupportedEnvironmentError: see `make_env`.
    """
    with closing(_make_as_it_is(environment)) as env, closing(make_env(environment)) as flat:
        assert isinstance(env.action_space, Discrete)
        assert isinstance(flat.observation_space, Box)
        spec, start = env.spec, int(env.action_space.start)
        return Description(
            observation_names=observation_names(env.observation_space),
            low=np.asarray(flat.observation_space.low, np.float64),
            high=np.asarray(flat.observation_space.high, np.float64),
            action_names=[f"action_{start + i}" for i in range(env.action_space.n)],
            action_start=start,
            made_by=_made_by(env),
            max_episode_steps=None if spec is None else spec.max_episode_steps,
            reward_threshold=None if spec is None else spec.reward_threshold,
        )


def _made_by(env: gym.Env[Any, Any]) -> type[Any]:
    """The class of an environment, or of a wrapper that changes its observations or actions."""
    while isinstance(env, gym.Wrapper):
        inner = env.env
        if (
            isinstance(env, gym.ObservationWrapper | gym.ActionWrapper)
            or env.observation_space is not inner.observation_space
            or env.action_space is not inner.action_space
        ):
            break
        env = inner
    return type(env)


def _make_as_it_is(environment: Environment, render_mode: str | None = None) -> gym.Env[Any, Any]:
    try:
        with _quiet():
            # Only if requested: not every environment accepts a render mode.
            rendering = {} if render_mode is None else {"render_mode": render_mode}
            # A copy: an environment may change what it is given.
            kwargs = copy.deepcopy(dict(environment.kwargs))
            arguments = {**_time_limit(environment), **kwargs, **rendering}
            env = gym.make(environment.id, **arguments)
            for wrapper in environment.wrappers:
                module, _, name = wrapper.partition(":")
                env = getattr(importlib.import_module(module), name)(env)
        reason = reason_against(env.observation_space, env.action_space) or _statistics_of(env)
    # An environment is third-party code: it can raise anything, or end the program.
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UnsupportedEnvironmentError(
            f"{environment.id} cannot be made: {' '.join(reason.split())}"
        ) from error
    if reason is None:
        return env
    env.close()
    raise UnsupportedEnvironmentError(f"{environment.id} is not supported: {reason}")


def _statistics_of(env: gym.Env[Any, Any]) -> str | None:
    """The reason against an environment's wrappers, if one keeps running statistics."""
    while isinstance(env, gym.Wrapper):
        for kind, option in _INSTEAD_OF.items():
            if isinstance(env, kind):
                return f"the statistics of {kind.__name__} would not be exported: use {option}"
        env = env.env
    return None


def _time_limit(environment: Environment) -> dict[str, Any]:
    limit = environment.max_episode_steps
    return {} if limit is None else {"max_episode_steps": limit}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings about an id with an older version or none: the user chose it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date")
        warnings.filterwarnings("ignore", message=".*Using the latest versioned environment")
        yield
