"""The demo player: real Gymnasium episodes in which the service selects every action."""

import itertools
import math
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.client import PolicyClient
from serving.demo.environment import Environment
from serving.schemas import ActResponse


class Moment(NamedTuple):
    """The state at the start of an episode or after one of its steps."""

    episode: int  # from 1
    steps: int
    observation: npt.NDArray[np.float32]  # [O]
    response: ActResponse | None  # with the last action; None at the start
    ended: bool
    episode_return: float  # so far
    mean_latency_ms: float  # of the calls of `/act` so far, measured by the player


def play(
    client: PolicyClient,
    environment: Environment,
    *,
    model: str | None,
    episodes: int,
    deterministic: bool,
    seed: int,
    feedback: bool,
) -> Iterator[Moment]:
    """Play episodes one after another.

    Args:
        client: of the service that selects the actions.
        environment: the one that the policy was trained on.
        model: name of the model; by default the default model of the service.
        episodes: number of episodes.
        deterministic: take the most probable actions instead of sampling.
        seed: of the environment; plus the number of steps so far, also of each sampled action.
        feedback: name each episode to the service, and send it the return.

    Raises:
        ServiceError: the service stopped responding, or rejected the observations.
        UnplayableError: the environment failed.
    """
    action_seeds = itertools.count(seed)
    run = os.urandom(4).hex()
    for episode in range(1, episodes + 1):
        name = f"play-{run}-{episode}" if feedback else None
        observation = environment.reset(seed=seed if episode == 1 else None)
        rewards: list[float] = []
        episode_return, steps, waited, ended = 0.0, 0, 0.0, False
        yield Moment(episode, steps, observation, None, ended, episode_return, 0.0)
        while not ended:
            started = time.perf_counter()
            response = client.act(
                observation[None, :],
                deterministic=deterministic,
                seed=next(action_seeds),
                model=model,
                episode=name,
                step=steps if feedback else None,
            )
            waited += time.perf_counter() - started
            observation, reward, ended = environment.step(response.actions[0])
            rewards.append(reward)
            # The final sum is rounded once, not at each step.
            episode_return = math.fsum(rewards) if ended else episode_return + reward
            steps += 1
            if ended and feedback:
                client.feedback(episode=name, episode_return=episode_return)
            latency_ms = 1000.0 * waited / steps
            yield Moment(episode, steps, observation, response, ended, episode_return, latency_ms)
