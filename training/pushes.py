"""Pushes: random changes of both velocities in Gymnasium's vectorised CartPole."""

from contextlib import closing

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv

from training.config import ConfigError, Environment, TrainingConfig
from training.envs import describe, make_vector_env
from training.types import BoolArray

INTERVAL_STEPS = 25  # between two pushes: half a second; in training, the mean


def can_push(environment: Environment) -> bool:
    """Whether an environment is Gymnasium's own CartPole, so that its state can be changed."""
    with closing(make_vector_env(environment, 1)) as env:
        arguments = {} if env.spec is None else env.spec.kwargs
        is_cartpole = type(env.unwrapped) is CartPoleVectorEnv
    pays_one_a_step = not arguments.get("sutton_barto_reward")
    return is_cartpole and pays_one_a_step and describe(environment).max_episode_steps is not None


def require_pushable(config: TrainingConfig) -> None:
    """Raise `ConfigError` if training is to push an environment that cannot be pushed."""
    if config.push_standard_deviation and not can_push(config.environment):
        raise ConfigError("push_standard_deviation works only with Gymnasium's own CartPole")


def push(
    env: VectorEnv, pushed: BoolArray, standard_deviation: float, rng: np.random.Generator
) -> None:
    """Add a normal number to the velocities of some carts, in m/s, and poles, in rad/s.

    Args:
        env: CartPole's vector environment.
        pushed: `[N]`, which of them.
        standard_deviation: of the numbers.
        rng: draws them.
    """
    state = env.unwrapped.state  # type: ignore[attr-defined]  # CartPoleVectorEnv's, [4, N]
    state[1::2, pushed] += rng.normal(0.0, standard_deviation, (2, int(pushed.sum())))


def push_at_random(env: VectorEnv, standard_deviation: float, rng: np.random.Generator) -> None:
    """Push each cart at random, so that its pushes are `INTERVAL_STEPS` apart on average."""
    push(env, rng.random(env.num_envs) < 1 / INTERVAL_STEPS, standard_deviation, rng)
