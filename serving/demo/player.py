"""The demo player: real Gymnasium episodes, every action decided through the service."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from serving.client import PolicyClient
from serving.demo.rendering import Moment
from serving.schemas import ActResponse

Watcher = Callable[[Moment], None]


class Episode(NamedTuple):
    """One finished episode."""

    episode: int  # from 1
    episode_return: float
    steps: int
    mean_latency_ms: float  # of the calls of `/act`, as the player saw them


def play(
    client: PolicyClient,
    env: gym.Env[Any, Any],
    *,
    episodes: int,
    deterministic: bool,
    seed: int,
    watchers: Sequence[Watcher] = (),
) -> Iterator[Episode]:
    """Play episodes one after the other.

    Args:
        client: of the service that decides.
        env: the environment that the policy was trained on.
        episodes: how many.
        deterministic: ask for the most probable actions.
        seed: of the environment, and of the sampled actions: the step's number is added.
        watchers: told of every start and every step.

    Raises:
        ServiceError: the service stopped answering, or refuses the observations.
        gymnasium.error.Error: the environment cannot be drawn here.
        RenderError: a watcher cannot go on.
    """

    def tell(decision: ActResponse | None) -> None:
        moment = Moment(episode, steps, observation, decision, ended, env.render)
        for watch in watchers:
            watch(moment)

    calls = 0
    for episode in range(1, episodes + 1):
        observation, _ = env.reset(seed=seed if episode == 1 else None)
        episode_return, steps, waited, ended = 0.0, 0, 0.0, False
        tell(None)
        while not ended:
            asked = time.perf_counter()
            decision = client.act(
                observation[None, :], deterministic=deterministic, seed=seed + calls
            )
            waited += time.perf_counter() - asked
            observation, reward, terminated, truncated, _ = env.step(decision.actions[0])
            episode_return += float(reward)
            steps += 1
            calls += 1
            ended = terminated or truncated
            tell(decision)
        yield Episode(episode, episode_return, steps, 1000.0 * waited / steps)
