"""How a policy performs outside its training distribution: CartPole made harder.

All episodes are greedy. Other environments have no such tests here.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from gymnasium.vector import VectorEnv

from training.config import Environment
from training.envs import describe
from training.evaluation import Evaluation, evaluate
from training.types import PolicyFunction

EPISODES = 100

# Gymnasium draws each number of the initial state from -0.05 to 0.05.
WIDER_STARTS = {"low": -0.15, "high": 0.15}

# Every half second both velocities change by a normal number, in m/s and rad/s.
PUSH_INTERVAL_STEPS = 25
PUSH_STANDARD_DEVIATION = 0.5

LONG_EPISODES = 20
LONG_EPISODE_STEPS = 10_000


def robustness(
    policy: PolicyFunction,
    environment: Environment,
    rng: np.random.Generator,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Evaluation]:
    """Evaluate a CartPole policy in wider starts, under pushes, and far beyond the time limit.

    Returns:
        `wider_starts`, `pushes` and `long_episodes`; empty for other environments, and for
        a CartPole with arguments or wrappers of its own.

    Raises:
        StopRequestedError: a stop was requested.
    """
    described = describe(environment)
    changed = environment.kwargs or environment.wrappers
    if described.name != "CartPole" or changed or described.max_episode_steps is None:
        return {}
    bounds = 0.0, float(described.max_episode_steps)  # a reward of 1 per step

    def push(env: VectorEnv, step: int) -> None:
        if step % PUSH_INTERVAL_STEPS == 0:
            state = env.unwrapped.state  # type: ignore[attr-defined]  # CartPoleVectorEnv, [4, N]
            state[1::2] += rng.normal(0.0, PUSH_STANDARD_DEVIATION, state[1::2].shape)

    greedy = partial(evaluate, policy, deterministic=True, rng=rng, stop_requested=stop_requested)
    harder = partial(greedy, environment, episodes=EPISODES, return_bounds=bounds)
    return {
        "wider_starts": harder(reset_options=WIDER_STARTS),
        "pushes": harder(disturb=push),
        "long_episodes": greedy(
            environment._replace(max_episode_steps=LONG_EPISODE_STEPS),
            episodes=LONG_EPISODES,
            return_bounds=(0.0, float(LONG_EPISODE_STEPS)),
        ),
    }
