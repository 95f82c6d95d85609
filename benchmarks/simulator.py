"""An environment that takes a given time for each step, and does nothing else."""

import time
from typing import Any

import gymnasium as gym
import numpy as np


class Simulator(gym.Env[np.ndarray, np.int64]):
    """Pays 1 for each of 200 steps, each of which takes `seconds`."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self.left = 200
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        del action
        if self.seconds > 0:
            time.sleep(self.seconds)
        self.left -= 1
        return self._look(), 1.0, False, self.left == 0, {}

    def _look(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 4).astype(np.float32)


gym.register("Simulator-v0", entry_point="benchmarks.simulator:Simulator")
