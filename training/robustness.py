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
SEED = 2_026  # of the card's episodes, which are the same for every policy


def robustness(
    policy: PolicyFunction,
    environment: Environment,
    stop_requested: Callable[[], bool] = lambda: False,
    endurance: Evaluation | None = None,
) -> dict[str, Evaluation]:
    """Evaluate a CartPole policy from wider starts, under pushes, and far beyond the time limit.

    Initial states and pushes are the same for every policy.

    Args:
        policy: the policy.
        environment: what it was trained in.
        stop_requested: called before each step; true ends the evaluation.
        endurance: the endurance test that this policy has passed, if any; it is not repeated if
            it had the same time limit.

    Returns:
        `wider_starts`, `pushes` and `long_episodes`; empty for other environments, and for
        a CartPole with arguments or wrappers of its own.

    Raises:
        StopRequestedError: a stop was requested.
    """
    if not can_push(environment):
        return {}
    play = partial(evaluate, policy, deterministic=True, stop_requested=stop_requested)
    tested = {
        "wider_starts": play(
            environment,
            episodes=WIDER_EPISODES,
            rng=np.random.default_rng(SEED),
            return_bounds=_return_bounds(environment),
            reset_options=WIDER_STARTS,
        ),
        "pushes": evaluate_pushed(policy, environment, np.random.default_rng(SEED), stop_requested),
    }
    if endurance is None or endurance.steps != LONG_EPISODES * LONG_EPISODE_STEPS:
        endurance = play_long_episodes(policy, environment, LONG_EPISODE_STEPS, stop_requested)
    return {**tested, "long_episodes": endurance}


def play_long_episodes(
    policy: PolicyFunction,
    environment: Environment,
    steps: int,
    stop_requested: Callable[[], bool],
    *,
    until_one_ends: bool = False,
) -> Evaluation:
    """Play greedy episodes with another time limit.

    Args:
        policy: the policy.
        environment: what it acts in.
        steps: the time limit.
        stop_requested: called before each step; true ends the evaluation.
        until_one_ends: stop as soon as one episode has ended; then only `steps` is meaningful.

    Raises:
        StopRequestedError: a stop was requested.
    """
    environment = environment._replace(max_episode_steps=steps)
    return evaluate(
        policy,
        environment,
        episodes=LONG_EPISODES,
        deterministic=True,
        rng=np.random.default_rng(SEED),
        return_bounds=_return_bounds(environment),
        until_one_ends=until_one_ends,
        stop_requested=stop_requested,
    )


def evaluate_pushed(
    policy: PolicyFunction,
    environment: Environment,
    rng: np.random.Generator,
    stop_requested: Callable[[], bool],
) -> Evaluation:
    """Play greedy episodes of CartPole in which every cart and pole is pushed at fixed steps.

    Raises:
        StopRequestedError: a stop was requested.
    """
    all_of_them = np.ones(PUSHED_EPISODES, bool)

    def push_at_intervals(env: VectorEnv, step: int) -> None:
        if step % INTERVAL_STEPS == 0:
            push(env, all_of_them, PUSH_STANDARD_DEVIATION, rng)

    return evaluate(
        policy,
        environment,
        episodes=PUSHED_EPISODES,
        deterministic=True,
        rng=rng,
        return_bounds=_return_bounds(environment),
        disturb=push_at_intervals,
        stop_requested=stop_requested,
    )


def _return_bounds(environment: Environment) -> Bounds | None:
    """The bounds of CartPole's returns: it pays 1 per step."""
    limit = describe(environment).max_episode_steps
    return (0.0, float(limit)) if limit is not None and can_push(environment) else None
