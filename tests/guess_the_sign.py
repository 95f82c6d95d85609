"""An environment that is learned in a second."""

from typing import Any

import gymnasium as gym
import numpy as np


class GuessTheSign(gym.Env[np.ndarray, np.int64]):
    """Pays 1 for each of 8 steps whose action says whether the observation is positive."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.remaining = 8
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = bool(action) == (self.seen > 0)
        self.remaining -= 1
        return self._look(), float(right), self.remaining == 0, False, {}

    def _look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-1, 1)
        return np.array([self.seen], np.float32)
