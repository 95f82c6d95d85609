"""Collecting from real Gymnasium environments."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TransformReward

from training.config import Environment
from training.envs import make_shares
from training.finite import NotFiniteError
from training.model import ActorCritic, Dense, Policy
from training.rollout import Rollout, collect, reset
from training.shares import OneShare


def always_right() -> Policy:
    """Pushes CartPole's cart to the right with certainty: the pole falls within 11 steps."""
    hidden = Dense(np.zeros((4, 1), np.float32), np.zeros(1, np.float32))
    actor = Dense(np.zeros((1, 2), np.float32), np.array([-100, 100], np.float32))
    critic = Dense(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    return Policy(ActorCritic((hidden,), (), actor, critic), "linear")


def collected(num_envs: int, num_steps: int, *, whole_episodes: bool = False) -> Rollout:
    env = make_shares(Environment("CartPole-v1"), num_envs)
    rollout, _ = collect(
        env,
        reset(env, seed=0),
        always_right(),
        np.random.default_rng(0),
        num_steps,
        whole_episodes=whole_episodes,
    )
    env.close()
    return rollout


def test_the_row_after_an_episodes_end_is_invalid_and_only_that() -> None:
    rollout = collected(num_envs=3, num_steps=40)
    ended = rollout.terminated | rollout.truncated
    assert ended.any()
    assert rollout.valid[0].all()
    np.testing.assert_array_equal(rollout.valid[1:], ~ended[:-1])


def test_observations_follow_each_other_and_the_last_of_an_episode_is_kept() -> None:
    rollout = collected(num_envs=1, num_steps=20)
    end = int(np.argmax(rollout.terminated[:, 0]))
    angle_at_end = rollout.observations[end + 1, 0, 2]
    assert abs(angle_at_end) > 0.2094  # fallen: 12 degrees
    angle_after_reset = rollout.observations[end + 2, 0, 2]
    assert abs(angle_after_reset) <= 0.05


def test_episode_returns_are_the_rewards_of_whole_episodes() -> None:
    rollout = collected(num_envs=1, num_steps=40)
    ends = np.flatnonzero(rollout.terminated[:, 0])
    starts = np.concatenate([[0], ends[:-1] + 2])  # the row after an end only resets
    expected = [end - start + 1 for start, end in zip(starts, ends, strict=True)]
    assert rollout.episode_returns.tolist() == expected
    assert 8 <= min(expected) <= max(expected) <= 11


def test_an_episode_that_spans_rollouts_is_counted_once_and_whole() -> None:
    env = make_shares(Environment("CartPole-v1"), 1)
    state, rng = reset(env, seed=0), np.random.default_rng(0)
    returns: list[float] = []
    for _ in range(10):
        rollout, state = collect(env, state, always_right(), rng, 4)
        returns.extend(rollout.episode_returns)
    env.close()
    assert returns == collected(num_envs=1, num_steps=40).episode_returns.tolist()


def test_a_rollout_that_would_only_reset_is_followed_by_the_next() -> None:
    env = make_shares(Environment("CartPole-v1", max_episode_steps=2), 3)
    state, rng = reset(env, seed=0), np.random.default_rng(0)
    steps = []
    for _ in range(6):  # steps 1 and 2 of three episodes, though each third step only resets
        rollout, state = collect(env, state, always_right(), rng, 1)
        assert rollout.valid.all()
        steps.append((len(rollout.episode_returns), rollout.truncated[0].all()))
    env.close()
    assert steps == [(0, False), (3, True)] * 3


def test_whole_episodes_stop_after_one_episode_each_and_pad_the_rest() -> None:
    rollout = collected(num_envs=2, num_steps=1000, whole_episodes=True)
    assert len(rollout.episode_returns) == 2
    assert rollout.valid.sum() == rollout.episode_returns.sum()  # CartPole pays 1 a step
    assert not rollout.rewards[20:].any()


def test_the_time_limit_truncates_and_does_not_terminate() -> None:
    # random play never reaches the goal in 200 steps
    env = make_shares(Environment("MountainCar-v0"), 2)
    hidden = Dense(np.zeros((2, 1), np.float32), np.zeros(1, np.float32))
    actor = Dense(np.zeros((1, 3), np.float32), np.zeros(3, np.float32))
    critic = Dense(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    policy = Policy(ActorCritic((hidden,), (), actor, critic), "tanh")
    rollout, _ = collect(env, reset(env, seed=1), policy, np.random.default_rng(0), 201)
    env.close()
    assert rollout.truncated[199].all()
    assert not rollout.terminated.any()
    assert not rollout.valid[200].any()
    assert rollout.episode_returns.tolist() == [-200, -200]


def test_a_reward_beyond_float32_is_told_with_its_step() -> None:
    def make() -> gym.Env[np.ndarray, np.int64]:
        return TransformReward(gym.make("CartPole-v1"), lambda _: 1e39)

    makers: list[Callable[[], gym.Env[np.ndarray, np.int64]]] = [make, make]
    env = OneShare(SyncVectorEnv(makers))
    state = reset(env, seed=0)
    message = "step 1 of the rollout: the reward of environment 0 is inf"
    with pytest.raises(NotFiniteError, match=message):
        collect(env, state, always_right(), np.random.default_rng(0), 4)
    env.close()
