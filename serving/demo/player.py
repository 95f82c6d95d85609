"""The demo player: real Gymnasium episodes in which the service selects every action."""

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
    mean_latency_ms: float  # of the calls of `/act`, measured by the player


def play(
    client: PolicyClient,
    env: gym.Env[Any, Any],
    *,
    episodes: int,
    deterministic: bool,
    seed: int,
    watchers: Sequence[Watcher] = (),
) -> Iterator[Episode]:
    """Play episodes one after another.

    Args:
        client: of the service that selects the actions.
        env: the environment that the policy was trained on.
        episodes: number of episodes.
        deterministic: take the most probable actions.
        seed: of the environment, and plus the step number, of the sampled actions.
        watchers: called at the start of an episode and after every step.

    Raises:
        ServiceError: the service stopped responding, or rejected the observations.
        gymnasium.error.Error: the environment cannot be rendered.
        RenderError: a watcher failed.
    """

    def notify(response: ActResponse | None) -> None:
        moment = Moment(episode, steps, observation, response, ended, env.render)
        for watch in watchers:
            watch(moment)

    calls = 0
    for episode in range(1, episodes + 1):
        observation, _ = env.reset(seed=seed if episode == 1 else None)
        episode_return, steps, waited, ended = 0.0, 0, 0.0, False
        notify(None)
        while not ended:
            started = time.perf_counter()
            response = client.act(
                observation[None, :], deterministic=deterministic, seed=seed + calls
            )
            waited += time.perf_counter() - started
            observation, reward, terminated, truncated, _ = env.step(response.actions[0])
            episode_return += float(reward)
            steps += 1
            calls += 1
            ended = terminated or truncated
            notify(response)
        yield Episode(episode, episode_return, steps, 1000.0 * waited / steps)
