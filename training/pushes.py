"""Pushes: random changes of both velocities in Gymnasium's vectorised CartPole."""

import numpy as np
from gymnasium.vector import VectorEnv

from training.config import Environment
from training.envs import describe
from training.types import BoolArray

INTERVAL_STEPS = 25  # half a second, between two pushes; in training its mean


def can_push(environment: Environment) -> bool:
    """Whether an environment is CartPole as Gymnasium has it, so that its state is known."""
    described = describe(environment)
    changed = environment.kwargs or environment.wrappers
    is_cartpole = described.name == "CartPole" and described.max_episode_steps is not None
    return is_cartpole and not changed


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
    """Push each with the same probability, so that pushes are `INTERVAL_STEPS` apart on average."""
    push(env, rng.random(env.num_envs) < 1 / INTERVAL_STEPS, standard_deviation, rng)
