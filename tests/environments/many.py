"""An environment whose observations have many numbers, of very different sizes."""

from typing import Any

import gymnasium as gym
import numpy as np

SIZE = 20
# What each number is at most; the second one never changes.
SCALES = np.array([1e-6, 0, 1, 1e9, *[3.0] * (SIZE - 4)])
CONSTANT = 2.5
LEVEL = 2


class Many(gym.Env[np.ndarray, np.int64]):
    """Pays 1 for each of 8 steps whose action says whether the level is low, medium or high."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (SIZE,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.remaining = 8
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = action == np.searchsorted([-1 / 3, 1 / 3], self.seen[LEVEL])
        self.remaining -= 1
        return self._look(), float(right), self.remaining == 0, False, {}

    def _look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-SCALES, SCALES).astype(np.float32)
        self.seen[1] = CONSTANT
        return self.seen


gym.register("Many-v0", entry_point=lambda **_: Many())
