"""Pushes of CartPole: in a step, in training, and on the policy card."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from tests.runs import run_trainer
from tests.test_rollout import always_right
from training.config import ConfigError, Environment
from training.config_options import change
from training.envs import make_shares
from training.model import Dense, Policy
from training.names import describe_with_names
from training.presets import PRESETS
from training.pushes import can_push, push, push_at_random
from training.robustness import robustness
from training.rollout import collect, reset
from training.trainer import Trainer
from training.types import FloatArray

LEFT = np.array([100, -100], np.float32)


def test_what_is_chosen_is_pushed_before_a_step() -> None:
    env = make_shares(Environment("CartPole-v1"), 1_000)
    state = reset(env, seed=0)
    pushed = np.arange(1_000) % 2 == 0
    rng = np.random.default_rng(1)
    rollout, _ = collect(
        env,
        state,
        always_right(),
        np.random.default_rng(0),
        1,
        disturb=lambda env: push(env, pushed, 0.5, rng),
    )
    env.close()
    # Euler's rule moves positions by the velocities that a step begins with, for 0.02 s.
    before, after = rollout.observations[:, :, :].astype(np.float64)
    added = (after[:, ::2] - before[:, ::2]) / 0.02 - before[:, 1::2]
    np.testing.assert_allclose(added[~pushed], 0.0, atol=1e-4)
    assert added[pushed].std(axis=0) == pytest.approx([0.5, 0.5], rel=0.15)
    assert abs(added[pushed].mean(axis=0)).max() < 0.1


def test_in_training_one_step_in_25_is_pushed_on_average() -> None:
    env = gym.make_vec("CartPole-v1", 50_000, vectorization_mode="vector_entry_point")
    env.reset(seed=0)
    state = env.unwrapped.state  # type: ignore[attr-defined]  # CartPoleVectorEnv's, [4, N]
    before = state.copy()
    push_at_random(env, 0.5, np.random.default_rng(1))
    changed = state != before
    env.close()
    assert not changed[::2].any()  # positions
    np.testing.assert_array_equal(changed[1], changed[3])
    # Five standard deviations of the binomial.
    assert changed[1].mean() == pytest.approx(1 / 25, abs=5 * np.sqrt(0.04 * 0.96 / 50_000))


def test_the_card_tests_every_policy_in_the_same_episodes() -> None:
    def first_observations(policy: Policy) -> list[bytes]:
        seen: list[bytes] = []

        def watch(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
            seen.append(observations.tobytes())
            return policy(observations)

        environment = Environment("CartPole-v1", max_episode_steps=2)
        robustness(watch, environment)
        return seen

    left = always_right()
    left = dataclasses.replace(
        left, weights=left.weights._replace(actor=Dense(left.weights.actor.kernel, LEFT))
    )
    right_seen, left_seen = first_observations(always_right()), first_observations(left)
    # two steps of wider starts, then two that begin with a push
    assert right_seen[0] == left_seen[0]
    assert right_seen[1] != left_seen[1]
    assert right_seen[2] == left_seen[2]
    pushed_right, pushed_left = (
        np.frombuffer(seen[3], np.float32) for seen in (right_seen, left_seen)
    )
    # positions after one step show the velocities after the push, whatever the action
    np.testing.assert_array_equal(
        pushed_right.reshape(-1, 4)[:, ::2], pushed_left.reshape(-1, 4)[:, ::2]
    )


def test_only_cartpole_as_it_is_can_be_pushed(tiny_env: str) -> None:
    for changes in ({"env_id": tiny_env}, {"env_kwargs": {"sutton_barto_reward": True}}):
        with pytest.raises(ConfigError, match="push_standard_deviation"):
            Trainer(dataclasses.replace(PRESETS["robust"], **changes), 0)
    assert change(PRESETS["robust"], {"env_id": tiny_env}).push_standard_deviation == 0.0


class OwnCartPole(CartPoleEnv):
    """Five numbers, under the name of Gymnasium's with four."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)


@pytest.mark.parametrize("env_id", ["lab/CartPole-v0", "CartPole-v9"])
def test_somebody_elses_cartpole_is_neither_named_nor_pushed_as_gymnasiums(env_id: str) -> None:
    gym.register(env_id, lambda **_: OwnCartPole(), max_episode_steps=20)
    try:
        own = Environment(env_id)
        assert not can_push(own)
        described = describe_with_names(own, [], [])
    finally:
        gym.registry.pop(env_id)
    assert described.observation_names == [f"observation_{i}" for i in range(5)]
    assert described.action_names == ["action_0", "action_1"]


def test_gymnasiums_cartpole_can_be_pushed_under_any_name_if_it_pays_1_a_step() -> None:
    spec = gym.spec("CartPole-v1")
    gym.register("lab/Cart-v0", spec.entry_point, vector_entry_point=spec.vector_entry_point)
    gym.register(
        "lab/Paid-v0",
        spec.entry_point,
        max_episode_steps=20,
        vector_entry_point=spec.vector_entry_point,
        kwargs={"sutton_barto_reward": True},
    )
    try:
        assert can_push(Environment("lab/Cart-v0", max_episode_steps=20))
        assert not can_push(Environment("lab/Cart-v0"))  # without a time limit
        assert not can_push(Environment("lab/Paid-v0"))
        names = describe_with_names(Environment("lab/Paid-v0"), [], []).action_names
    finally:
        for env_id in ("lab/Cart-v0", "lab/Paid-v0"):
            gym.registry.pop(env_id)
    assert names == ["push_left", "push_right"]
    assert can_push(Environment("CartPole-v0"))
    assert can_push(Environment("CartPole"))


@pytest.mark.long  # a minute each
@pytest.mark.parametrize("seed", [0, 1])
def test_the_robust_preset_withstands_pushes_and_all_else(seed: int) -> None:
    config = PRESETS["robust"]
    trainer, result, _ = run_trainer(config, seed)
    assert result.solved
    assert trainer.state.env_steps >= config.max_env_steps  # no pass ends it
    assert result.greedy.minimum == 500.0
    assert result.sampled.mean >= 490.0
    tested = robustness(result.policy, config.environment)
    assert tested["pushes"].mean >= 350.0
    assert tested["long_episodes"].minimum == 10_000.0
