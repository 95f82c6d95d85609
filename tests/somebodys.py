"""A package of somebody else, and cards that name its environments."""

import copy
from pathlib import Path
from typing import Any

# A package of somebody else. Its environment is as the cartpole policy needs it, 4 numbers and 2
# actions, but nested and with actions from 1; its reward is an option.
CODE = '''
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

print("whatever a package prints when it is imported")


class Grid(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}
    observation_space = Dict({"cell": Discrete(2), "place": Box(-1, 1, (2,), np.float64)})
    action_space = Discrete(2, start=1)

    def __init__(self, reward=1.0, picture=True, fails_in=None, render_mode=None):
        self.reward, self.picture, self.render_mode = reward, picture, render_mode
        self.fails_in = fails_in
        self._observed("__init__")

    def _observed(self, where):
        if self.fails_in == where:
            raise KeyError("something\\nin two lines")
        return {"cell": 1, "place": np.array([0.25, -0.5])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observed("reset"), {}

    def step(self, action):
        assert action in (1, 2), action
        return self._observed("step"), self.reward, False, False, {}

    def render(self):
        return np.full((20, 30, 3), 7, np.uint8) if self.picture else None

    def close(self):
        self._observed("close")


class Plain(Grid):
    """Has never heard of rendering."""

    metadata = {}

    def __init__(self):
        super().__init__()


class Endless(Grid):
    observation_space = gym.spaces.Sequence(Discrete(2))


class Continuous(Grid):
    action_space = Box(-1, 1, (2,))


for kind in (Grid, Plain, Endless, Continuous):
    gym.register(f"{kind.__name__}-v0", kind)


class Twice(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


class Plus(gym.RewardWrapper):
    def reward(self, reward):
        return reward + 1


def broken(env):
    raise RuntimeError("no wrapper today")


def nothing(env):
    return None


number = 3
'''
PACKAGES = {
    "somebodys/__init__.py": "",
    "somebodys/envs.py": CODE,
    "somebodys/ends.py": "raise SystemExit(0)",
    "somebodys/broken.py": "1 / 0",
    "somebodys/incomplete.py": "import a_package_that_is_not_here",
}
CARD: dict[str, Any] = {
    "environment": "somebodys.envs:Grid-v0",
    "environment_options": {"kwargs": {}, "max_episode_steps": 3, "wrappers": []},
    "observations": {"names": ["a", "b", "c", "d"]},
    "actions": {"names": ["left", "right"], "start": 1},
}
CARTPOLE: dict[str, Any] = {**CARD, "environment": "CartPole-v1", "actions": {"names": ["a", "b"]}}
del CARTPOLE["environment_options"]


def write_packages(folder: Path) -> None:
    for name, code in PACKAGES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)


def card_with(section: str | None = None, **changes: Any) -> dict[str, Any]:
    """The card with changes in a section or at its top."""
    card = copy.deepcopy(CARD)
    (card if section is None else card[section]).update(changes)
    return card
