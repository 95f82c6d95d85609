"""How a policy performs outside its training distribution: CartPole made harder.

All episodes are greedy. Other environments have no such tests here.
"""

from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

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
    policy: PolicyFunction, env_id: str, rng: np.random.Generator
) -> dict[str, Evaluation]:
    """Evaluate a CartPole policy in wider starts, under pushes, and far beyond the time limit.

    Returns:
        `wider_starts`, `pushes` and `long_episodes`; empty for other environments.
    """
    spec = gym.spec(env_id)
    if spec.name != "CartPole" or spec.max_episode_steps is None:
        return {}
    bounds = 0.0, float(spec.max_episode_steps)  # a reward of 1 per step

    def push(env: VectorEnv, step: int) -> None:
        if step % PUSH_INTERVAL_STEPS == 0:
            state = env.unwrapped.state  # type: ignore[attr-defined]  # CartPoleVectorEnv, [4, N]
            state[1::2] += rng.normal(0.0, PUSH_STANDARD_DEVIATION, state[1::2].shape)

    greedy = partial(evaluate, policy, env_id, deterministic=True, rng=rng)
    return {
        "wider_starts": greedy(episodes=EPISODES, return_bounds=bounds, reset_options=WIDER_STARTS),
        "pushes": greedy(episodes=EPISODES, return_bounds=bounds, disturb=push),
        "long_episodes": greedy(
            episodes=LONG_EPISODES,
            return_bounds=(0.0, float(LONG_EPISODE_STEPS)),
            max_episode_steps=LONG_EPISODE_STEPS,
        ),
    }
