"""Which environments are accepted, and how they are made."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.vector import SyncVectorEnv

from training.config import ConfigError, Environment
from training.envs import UnsupportedEnvironmentError, describe, make_env, make_vector_env
from training.names import describe_with_names
from training.spaces import observation_names, reason_against

CARTPOLE = Environment("CartPole-v1")
PACKAGE = """
import gymnasium as gym
import numpy as np

class Switch(gym.Env):
    observation_space = gym.spaces.Dict(
        {"level": gym.spaces.Box(0, 1, (2,), np.float64), "mode": gym.spaces.Discrete(3, start=1)}
    )
    action_space = gym.spaces.Discrete(2, start=5)

    def __init__(self, render_mode=None, mode=2):
        self.mode = mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"level": np.array([0.25, 0.5]), "mode": self.mode}, {}

    def step(self, action):
        return {"level": np.array([0.25, 0.5]), "mode": self.mode}, float(action), True, False, {}

def doubled(env):
    return gym.wrappers.TransformReward(env, lambda reward: 2 * reward)

class Emptying(Switch):
    def __init__(self, config):
        super().__init__(mode=config.pop("mode"))

def timed_cartpole():
    return gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1"))

def reversed_cartpole():
    env = gym.make("CartPole-v1")
    return gym.wrappers.TransformObservation(env, lambda seen: seen[::-1], env.observation_space)

def other_way_acrobot():
    env = gym.make("Acrobot-v1")
    return gym.wrappers.TransformAction(env, lambda action: 2 - action, env.action_space)

def recorded_cartpole():
    return gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))

class Tenth(gym.RewardWrapper, gym.utils.RecordConstructorArgs):
    def __init__(self, env):
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def reward(self, reward):
        return reward / 10

MODULE = "gymnasium.envs.classic_control.cartpole"
KINDS = {
    "Switch-v0": Switch,
    "Emptying-v0": Emptying,
    "Timed-v0": timed_cartpole,
    "Reversed-v0": reversed_cartpole,
    "OtherWay-v0": other_way_acrobot,
    "Recorded-v0": recorded_cartpole,
}
for name, kind in KINDS.items():
    gym.register(name, entry_point=kind)
gym.register(
    "Tenth-v0",
    entry_point=f"{MODULE}:CartPoleEnv",
    vector_entry_point=f"{MODULE}:CartPoleVectorEnv",
    additional_wrappers=(Tenth.wrapper_spec(),),
)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of one's own that registers an environment and has a wrapper."""
    (tmp_path / "switches.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "switches"
    switches = sys.modules.pop("switches", None)
    for name in [] if switches is None else [*switches.KINDS, "Tenth-v0"]:
        gym.registry.pop(name, None)


@pytest.mark.parametrize(
    ("env_id", "size", "actions", "threshold"),
    [
        ("CartPole-v1", 4, 2, 475.0),
        ("CartPole-v0", 4, 2, 195.0),
        ("CartPole", 4, 2, 475.0),  # of the latest version
        ("Acrobot-v1", 6, 3, -100.0),
        ("MountainCar-v0", 2, 3, -110.0),
        ("FrozenLake-v1", 16, 4, 0.7),  # a Discrete observation
        ("Blackjack-v1", 32 + 11 + 2, 2, None),  # a Tuple of Discretes
    ],
)
def test_what_can_be_flattened_is_accepted_with_discrete_actions(
    env_id: str, size: int, actions: int, threshold: float | None
) -> None:
    described = describe(Environment(env_id))
    assert len(described.observation_names) == len(set(described.observation_names)) == size
    assert described.low.shape == described.high.shape == (size,)
    assert len(described.action_names) == actions
    assert described.reward_threshold == threshold
    env = make_vector_env(Environment(env_id), 3)
    assert env.num_envs == 3
    assert env.single_observation_space.shape == (size,)
    assert env.reset(seed=0)[0].shape == (3, size)
    env.close()


def test_a_module_of_ones_own_is_imported_and_its_spaces_flattened(package: str) -> None:
    environment = Environment(f"{package}:Switch-v0", {"mode": 3}, wrappers=(f"{package}:doubled",))
    described = describe(environment)
    assert described.observation_names == ["level_0", "level_1", "mode_1", "mode_2", "mode_3"]
    assert (described.action_names, described.action_start) == (["action_5", "action_6"], 5)
    env = make_vector_env(environment, 2)
    np.testing.assert_array_equal(env.reset()[0], [[0.25, 0.5, 0, 0, 1]] * 2)
    _, rewards, *_ = env.step(np.array([0, 1]))  # the environment's own are 5 and 6
    assert rewards.tolist() == [10, 12]
    env.close()


def test_an_environment_that_changes_its_arguments_changes_no_others(package: str) -> None:
    environment = Environment(f"{package}:Emptying-v0", {"config": {"mode": 3}})
    env = make_vector_env(environment, 2)
    np.testing.assert_array_equal(env.reset()[0], [[0.25, 0.5, 0, 0, 1]] * 2)
    env.close()
    assert environment.kwargs == {"config": {"mode": 3}}


def test_wrappers_that_a_registration_names_are_around_environments_stepped_together(
    package: str,
) -> None:
    env = make_vector_env(Environment(f"{package}:Tenth-v0"), 2)
    env.reset(seed=0)
    assert env.step(np.array([0, 1]))[1].tolist() == [0.1, 0.1]
    env.close()


def test_gymnasiums_own_vectorisation_is_used_only_where_it_is_the_same(package: str) -> None:
    with_wrapper = CARTPOLE._replace(wrappers=(f"{package}:doubled",))
    with_argument = CARTPOLE._replace(kwargs={"sutton_barto_reward": True})
    assert not isinstance(make_vector_env(CARTPOLE, 1), SyncVectorEnv)
    assert isinstance(make_vector_env(with_wrapper, 1), SyncVectorEnv)
    assert isinstance(make_vector_env(with_argument, 1), SyncVectorEnv)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0"])  # vectorised, or one by one
def test_the_time_limit_can_be_replaced(env_id: str) -> None:
    environment = Environment(env_id, max_episode_steps=3)
    assert describe(environment).max_episode_steps == 3
    env = make_vector_env(environment, 1)
    env.reset(seed=0)
    assert [bool(env.step(np.zeros(1, int))[3][0]) for _ in range(3)] == [False, False, True]
    env.close()


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (Environment("Pendulum-v1"), "actions are Box"),
        (Environment("Nope-v0"), "doesn't exist"),
        (Environment("CartPole-v9"), "doesn't exist"),
        (Environment("not an id!"), "Malformed"),
        (Environment("no_such_module:CartPole-v1"), "No module named 'no_such_module'"),
        (Environment("HalfCheetah-v5"), "MuJoCo is not installed"),
        (Environment("CartPole-v1", {"gravity": 1}), "unexpected keyword argument 'gravity'"),
        (Environment("CartPole-v1", wrappers=("math:nope",)), "no attribute 'nope'"),
        (Environment("CartPole-v1", wrappers=("math:pi",)), "not callable"),
        (Environment("CartPole-v1", wrappers=("operator:not_",)), "'bool' object"),
        (Environment("CartPole-v1", wrappers=("sys:exit",)), "SystemExit"),
        (
            Environment(
                "CartPole-v1",
                wrappers=(
                    "gymnasium.wrappers:NormalizeObservation",
                    "gymnasium.wrappers:FlattenObservation",
                ),
            ),
            "NormalizeObservation would not be exported: use --normalize-observations",
        ),
        (
            Environment("CartPole-v1", wrappers=("gymnasium.wrappers:NormalizeReward",)),
            "NormalizeReward would not be exported: use --scale-rewards",
        ),
    ],
)
def test_others_are_refused_with_the_reason(environment: Environment, reason: str) -> None:
    for make in (describe, make_env, lambda made: make_vector_env(made, 2)):
        with pytest.raises(UnsupportedEnvironmentError, match=reason) as refusal:
            make(environment)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (Box(0, 255, (84, 84, 4), np.uint8), "images of shape"),
        (Dict({"eye": Box(0, 255, (8, 8), np.uint8), "speed": Box(0, 1)}), "images of shape"),
        (Box(0, 255, (128,), np.uint8), None),  # such as Atari's memory
        (Text(4), "size is not fixed"),
        (Tuple([Discrete(2), gym.spaces.Sequence(Discrete(2))]), "size is not fixed"),
        (Dict({}), "observations are empty"),
    ],
)
def test_images_and_what_varies_in_size_are_refused(
    space: gym.Space[Any], reason: str | None
) -> None:
    found = reason_against(space, Discrete(2))
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (Box(0, 1, (2,)), ["observation_0", "observation_1"]),
        (Box(0, 1, (1, 2)), ["observation_0_0", "observation_0_1"]),
        (Discrete(2, start=-1), ["observation_-1", "observation_0"]),
        (MultiDiscrete([2, 1]), ["observation_0_0", "observation_0_1", "observation_1_0"]),
        (
            Tuple([Box(0, 1), MultiBinary(2)]),
            ["observation_0", "observation_1_0", "observation_1_1"],
        ),
        (
            Dict({"wheel": Dict({"speed": Box(0, 1), "on": Discrete(2)})}),
            ["wheel_speed", "wheel_on_0", "wheel_on_1"],
        ),
        # the names would not be different
        (Dict({"a": Box(0, 1, (2,)), "a_0": Box(0, 1)}), [f"observation_{i}" for i in range(3)]),
    ],
)
def test_names_follow_the_keys_of_the_space(space: gym.Space[Any], names: list[str]) -> None:
    assert sorted(observation_names(space)) == sorted(names)


def test_names_stand_in_the_order_of_the_flat_numbers() -> None:
    space = Dict({"b": Box(0, 1, (2,)), "a": Discrete(2), "c": Tuple([Box(0, 9), Discrete(2)])})
    observation = {"b": np.array([0.25, 0.5]), "a": 1, "c": (np.array([7.0]), 0)}
    flat = gym.spaces.flatten(space, observation)
    numbers = dict(zip(observation_names(space), flat, strict=True))
    expected = {"a_0": 0, "a_1": 1, "b_0": 0.25, "b_1": 0.5, "c_0": 7, "c_1_0": 1, "c_1_1": 0}
    assert numbers == expected


def test_names_can_be_given() -> None:
    described = describe_with_names(CARTPOLE, ["x", "v", "angle", "spin"], [])
    assert described.observation_names == ["x", "v", "angle", "spin"]
    assert described.action_names == ["push_left", "push_right"]
    with pytest.raises(ConfigError, match="action_names has 3 names, CartPole-v1 has 2"):
        describe_with_names(CARTPOLE, [], ["a", "b", "c"])


def test_a_wrapper_may_change_what_the_numbers_are(package: str) -> None:
    wrapped = describe_with_names(CARTPOLE._replace(wrappers=(f"{package}:doubled",)), [], [])
    assert wrapped.observation_names == [f"observation_{i}" for i in range(4)]


@pytest.mark.parametrize(
    ("name", "size"), [("Timed-v0", 5), ("Reversed-v0", 4), ("OtherWay-v0", 6)]
)
def test_a_registered_environment_may_have_such_a_wrapper_inside(
    package: str, name: str, size: int
) -> None:
    described = describe_with_names(Environment(f"{package}:{name}"), [], [])
    assert described.observation_names == [f"observation_{i}" for i in range(size)]
    assert described.action_names[:2] == ["action_0", "action_1"]


def test_known_names_stay_in_a_wrapper_that_only_looks_on(package: str) -> None:
    described = describe_with_names(Environment(f"{package}:Recorded-v0"), [], [])
    assert described.observation_names[0] == "cart_position"


def test_a_seed_repeats_the_first_observations() -> None:
    def first(seed: int) -> np.ndarray:
        env = make_vector_env(CARTPOLE, 4)
        observations: np.ndarray = env.reset(seed=seed)[0]
        env.close()
        return observations

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))
