"""How a policy performs outside its training distribution: CartPole made harder.

All episodes are greedy. Other environments have no such tests here.
"""

from collections.abc import Callable

import numpy as np
from gymnasium.vector import VectorEnv

from training.config import Environment
from training.envs import describe
from training.evaluation import Evaluation, evaluate
from training.intervals import Bounds
from training.pushes import INTERVAL_STEPS, can_push, push
from training.types import PolicyFunction

WIDER_EPISODES = 100
PUSHED_EPISODES = 1_000
LONG_EPISODES = 20

# Gymnasium draws each number of the initial state from -0.05 to 0.05.
WIDER_STARTS = {"low": -0.15, "high": 0.15}

PUSH_STANDARD_DEVIATION = 0.5  # m/s and rad/s
LONG_EPISODE_STEPS = 10_000
SEED = 2_026  # of the card's episodes: every policy is tested in the same ones


def robustness(
    policy: PolicyFunction,
    environment: Environment,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Evaluation]:
    """Evaluate a CartPole policy in wider starts, under pushes, and far beyond the time limit.

    Initial states and pushes are the same for every policy.

    Returns:
        `wider_starts`, `pushes` and `long_episodes`; empty for other environments, and for
        a CartPole with arguments or wrappers of its own.

    Raises:
        StopRequestedError: a stop was requested.
    """
    if not can_push(environment):
        return {}
    bounds = return_bounds(environment)
    return {
        "wider_starts": evaluate(
            policy,
            environment,
            episodes=WIDER_EPISODES,
            deterministic=True,
            rng=np.random.default_rng(SEED),
            return_bounds=bounds,
            reset_options=WIDER_STARTS,
            stop_requested=stop_requested,
        ),
        "pushes": evaluate_pushed(
            policy, environment, PUSHED_EPISODES, np.random.default_rng(SEED), stop_requested
        ),
        "long_episodes": evaluate(
            policy,
            environment._replace(max_episode_steps=LONG_EPISODE_STEPS),
            episodes=LONG_EPISODES,
            deterministic=True,
            rng=np.random.default_rng(SEED),
            return_bounds=(0.0, float(LONG_EPISODE_STEPS)),
            stop_requested=stop_requested,
        ),
    }


def evaluate_pushed(
    policy: PolicyFunction,
    environment: Environment,
    episodes: int,
    rng: np.random.Generator,
    stop_requested: Callable[[], bool],
) -> Evaluation:
    """Play greedy episodes of CartPole in which every cart and pole is pushed at fixed steps.

    Raises:
        StopRequestedError: a stop was requested.
    """
    all_of_them = np.ones(episodes, bool)

    def push_at_intervals(env: VectorEnv, step: int) -> None:
        if step % INTERVAL_STEPS == 0:
            push(env, all_of_them, PUSH_STANDARD_DEVIATION, rng)

    return evaluate(
        policy,
        environment,
        episodes=episodes,
        deterministic=True,
        rng=rng,
        return_bounds=return_bounds(environment),
        disturb=push_at_intervals,
        stop_requested=stop_requested,
    )


def return_bounds(environment: Environment) -> Bounds:
    """Of CartPole, which pays 1 per step."""
    limit = describe(environment).max_episode_steps
    assert limit is not None
    return 0.0, float(limit)
