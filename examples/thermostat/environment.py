"""A heater with three levels that keeps a room at a temperature through one winter's day."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete

Observation = dict[str, Any]

WARMING = {1: 0.0, 2: 1.0, 3: 2.0}  # degrees a step, by the level of the heater
LOSS = 0.1  # share of the difference to the outside that a step evens out
STEPS_A_DAY = 96  # of a quarter of an hour


class Thermostat(gym.Env[Observation, np.int64]):
    """Each step pays up to 1 for the right temperature, minus 0.1 per level above the lowest.

    The observations have named parts, the actions are the levels 1, 2 and 3, and there is no reward
    threshold: docs/own.md says how training handles such an environment.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # as Gymnasium has it
    observation_space = Dict(
        {
            "room": Box(-50.0, 50.0, (1,), np.float64),  # degrees Celsius
            "outside": Box(-50.0, 50.0, (1,), np.float64),
            "heater": Discrete(3, start=1),  # the level of the step before
        }
    )
    action_space = Discrete(3, start=1)

    def __init__(self, target: float = 21.0, render_mode: str | None = None) -> None:
        """Keep the room at `target` degrees Celsius."""
        self.target = target
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a day with a random temperature of the room and of the night."""
        super().reset(seed=seed, options=options)
        self.room = self.np_random.uniform(12.0, 24.0)
        self.night = self.np_random.uniform(-5.0, 10.0)
        self.heater, self.steps = 1, 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Heat for a quarter of an hour."""
        self.heater = int(action)
        self.room += WARMING[self.heater] + LOSS * (self._outside() - self.room)
        self.steps += 1
        comfort = 1.0 - min(abs(self.room - self.target) / 5.0, 1.0)
        return self._observe(), comfort - 0.1 * (self.heater - 1), False, False, {}

    def render(self) -> npt.NDArray[np.uint8]:
        """Draw two thermometers and a mark at the target, as pixels `[100, 150, 3]`."""
        pixels = np.full((100, 150, 3), 255, np.uint8)
        for left, degrees, gray in [(30, self.room, 100), (90, self._outside(), 180)]:
            pixels[round(49 - degrees) :, left : left + 30] = gray
        pixels[round(49 - self.target)] = 0
        return pixels

    def _outside(self) -> float:
        return float(self.night + 5.0 * np.sin(np.pi * self.steps / STEPS_A_DAY))

    def _observe(self) -> Observation:
        return {
            "room": np.array([self.room]),
            "outside": np.array([self._outside()]),
            "heater": np.int64(self.heater),
        }
