"""Environments of one's own, each with what makes it hard to store, learn from or wait for.

Tests put this folder on the path, as users do with theirs.
"""

import multiprocessing
import os
import sys
import threading
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class Plain(gym.Env[np.ndarray, np.int64]):
    """Pays 1 for each of 8 steps whose action says whether the observation is positive."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.left = 8
        return self._look(), {}

    def step(self, action: np.int64) -> Step:
        right = bool(action) == (self.seen > 0)
        self.left -= 1
        return self._look(), float(right), self.left == 0, False, {}

    def _look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-1, 1)
        return np.array([self.seen], np.float32)


class Locked(Plain):
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Recreated(Plain, EzPickle):
    """Pickles how it was made, and not its state: as Box2D's and MuJoCo's."""

    def __init__(self) -> None:
        EzPickle.__init__(self)


class Slow(Plain):
    """Takes a hundredth of a second for each step."""

    def step(self, action: np.int64) -> Step:
        time.sleep(0.01)
        return super().step(action)


class NotFinite(Plain):
    """Rewards with NaN from a step on that is counted over all of them."""

    steps = 0

    def __init__(self, after: int = 0) -> None:
        self.after = after

    def step(self, action: np.int64) -> Step:
        NotFinite.steps += 1
        observation, reward, terminated, truncated, info = super().step(action)
        if NotFinite.steps > self.after:
            reward = np.nan
        return observation, reward, terminated, truncated, info


class Countdown(Plain):
    """Lasts for a random number of steps, pays 1 for each, and counts those of all."""

    steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        first = super().reset(seed=seed, options=options)
        self.left = int(self.np_random.integers(1, 50))
        return first

    def step(self, action: np.int64) -> Step:
        Countdown.steps += 1
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 1.0, terminated, truncated, info


class Raising(Plain):
    """Raises after some steps, in a process that multiprocessing has started."""

    def step(self, action: np.int64) -> Step:
        if multiprocessing.parent_process() is not None and self.left == 3:
            raise RuntimeError("out of fuel")
        return super().step(action)


class Exiting(Plain):
    """Ends the program after some steps, as if all were well."""

    def step(self, action: np.int64) -> Step:
        if self.left == 3:
            sys.exit(0)
        return super().step(action)


class Crashing(Plain):
    """Ends its process when it is drawn, as a broken graphics driver does."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def render(self) -> None:
        os._exit(1)


KINDS = (Plain, Locked, Recreated, Slow, NotFinite, Countdown, Raising, Exiting, Crashing)
for kind in KINDS:
    gym.register(f"{kind.__name__}-v0", entry_point=f"own:{kind.__name__}")
