"""Advantages and returns against values worked out by hand."""

import dataclasses

import numpy as np
import pytest

from training.advantages import (
    explained_variance,
    generalized_advantages,
    make_batch,
    monte_carlo_returns,
    standardize,
)
from training.model import ActorCritic, Dense, Policy
from training.presets import PRESETS
from training.rollout import Rollout
from training.types import BoolArray, FloatArray


def column(*samples: float) -> FloatArray:
    """`[T, 1]`: one environment."""
    return np.array(samples, np.float32)[:, None]


def flags(*samples: int) -> BoolArray:
    return np.array(samples, bool)[:, None]


def test_gae_of_two_steps_by_hand() -> None:
    advantages = generalized_advantages(
        rewards=column(1, 2),
        values=column(10, 20, 40),
        terminated=flags(0, 0),
        truncated=flags(0, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # errors: 1 + 0.5*20 - 10 = 1 and 2 + 0.5*40 - 20 = 2; first: 1 + 0.25*2
    np.testing.assert_allclose(advantages, column(1.5, 2.0))


def test_gae_ends_the_value_where_an_episode_terminated() -> None:
    advantages = generalized_advantages(
        rewards=column(1, 1),
        values=column(10, 20, 40),
        terminated=flags(1, 0),
        truncated=flags(0, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    np.testing.assert_allclose(advantages[0], 1 - 10)  # no value after it, no later error


def test_gae_bootstraps_from_the_last_observation_where_an_episode_was_truncated() -> None:
    advantages = generalized_advantages(
        rewards=column(1, 1),
        values=column(10, 20, 40),
        terminated=flags(0, 0),
        truncated=flags(1, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    np.testing.assert_allclose(advantages[0], 1 + 0.5 * 20 - 10)  # but no later error


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_gae_is_zero_for_the_true_value_of_endless_reward_through_time_limits(
    gae_lambda: float,
) -> None:
    gamma, steps = 0.9, 50
    truncated = np.zeros((steps, 1), bool)
    truncated[9::10] = True
    advantages = generalized_advantages(
        rewards=np.ones((steps, 1), np.float32),
        values=np.full((steps + 1, 1), 1 / (1 - gamma), np.float32),
        terminated=np.zeros((steps, 1), bool),
        truncated=truncated,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    np.testing.assert_allclose(advantages, 0.0, atol=1e-5)


def test_gae_hands_nothing_of_a_reset_row_to_the_episode_before_it() -> None:
    def first_advantage(of_reset_row: float, value_after_it: float) -> float:
        return float(
            generalized_advantages(
                rewards=column(1, of_reset_row, 1),
                values=column(10, 20, value_after_it, 40),
                terminated=flags(1, 0, 0),
                truncated=flags(0, 0, 0),
                gamma=0.9,
                gae_lambda=0.9,
            )[0, 0]
        )

    assert first_advantage(0, 30) == first_advantage(1000, -1000)


def test_monte_carlo_returns_by_hand_restart_at_an_episodes_end() -> None:
    returns = monte_carlo_returns(column(1, 2, 4, 8), flags(0, 1, 0, 0), gamma=0.5)
    np.testing.assert_allclose(returns, column(1 + 0.5 * 2, 2, 4 + 0.5 * 8, 8))


def test_standardize_uses_valid_samples_only() -> None:
    standardized = standardize(column(1, 3, 1000), flags(1, 1, 0))
    np.testing.assert_allclose(standardized[:2], column(-1, 1), atol=1e-6)  # mean 2, std 1


def test_explained_variance_by_hand() -> None:
    # of 1 and 3 the variance is 1; the errors -1 and 0 leave 1/4 of it, the third is not valid
    explained = explained_variance(column(2, 3, 9), column(1, 3, 99), flags(1, 1, 0))
    assert explained == pytest.approx(0.75)
    assert explained_variance(column(1, 2), column(5, 5), flags(1, 1)) == 0.0


def test_returns_that_differ_by_rounding_only_do_not_vary() -> None:
    # With gamma 0 every return is the reward, which a value is taken from and added to.
    values = np.linspace(-9, 9, 101, dtype=np.float32)[:, None]
    rewards, never = np.full((100, 1), 0.1, np.float32), np.zeros((100, 1), bool)
    advantages = generalized_advantages(rewards, values, never, never, gamma=0.0, gae_lambda=1.0)
    returns = advantages + values[:-1]
    assert 0 < abs(returns - rewards).max() < 1e-6
    assert explained_variance(values[:-1], returns, ~never) == 0.0
    # a thousandth of the size of the values is not rounding
    near = values[:-1] / np.float32(1000) + np.float32(9)
    assert explained_variance(near, near, ~never) == 1.0


# The value of an observation is itself, and the actions have probabilities 3/4 and 1/4.
READS_VALUES = Policy(
    ActorCritic(
        hidden=(Dense(np.ones((1, 1), np.float32), np.zeros(1, np.float32)),),
        critic_hidden=(),
        actor=Dense(np.zeros((1, 2), np.float32), np.log([0.75, 0.25]).astype(np.float32)),
        critic=Dense(np.ones((1, 1), np.float32), np.zeros(1, np.float32)),
    ),
    "linear",
)
# Two steps of two environments; the second terminates at once, so its next row only resets it.
ROLLOUT = Rollout(
    observations=np.array([[[10], [4]], [[20], [8]], [[40], [16]]], np.float32),
    actions=np.array([[1, 0], [0, 1]]),
    rewards=np.array([[1, 0], [2, 0]], np.float32),
    terminated=np.array([[False, True], [False, False]]),
    truncated=np.zeros((2, 2), bool),
    valid=np.array([[True, True], [True, False]]),
    episode_returns=np.zeros(1),
)
PLAIN = dataclasses.replace(
    PRESETS["a2c"], num_envs=2, num_steps=2, gamma=0.5, gae_lambda=0.5, normalize_advantages=False
)


def test_a_batch_of_gae_by_hand() -> None:
    batch, explained = make_batch(PLAIN, READS_VALUES, ROLLOUT)
    # step by step: environment 0, environment 1, and the same of the second step
    np.testing.assert_array_equal(batch.observations, column(10, 4, 20, 8))
    np.testing.assert_array_equal(batch.actions, [1, 0, 0, 1])
    np.testing.assert_allclose(batch.log_probs, np.log([0.25, 0.75, 0.75, 0.25]), rtol=1e-6)
    # environment 0 as in the first test; environment 1: 0 - 4, then 0.5*16 - 8
    np.testing.assert_allclose(batch.advantages, [1.5, -4, 2, 0])
    np.testing.assert_allclose(batch.returns, [11.5, 0, 22, 8])  # advantages + values
    assert batch.valid.tolist() == [1, 1, 1, 0]
    # valid returns 11.5, 0 and 22, missed by 1.5, -4 and 2
    missed = (1.5**2 + 4**2 + 2**2) / 3 - (0.5 / 3) ** 2
    assert explained == pytest.approx(1 - missed / ((11.5**2 + 22**2) / 3 - (33.5 / 3) ** 2))


def test_only_advantages_are_standardized_and_by_the_valid_samples() -> None:
    config = dataclasses.replace(PLAIN, normalize_advantages=True)
    batch, _ = make_batch(config, READS_VALUES, ROLLOUT)
    mean, variance = -0.5 / 3, (1.5**2 + 4**2 + 2**2) / 3 - (0.5 / 3) ** 2
    expected = (np.array([1.5, -4, 2]) - mean) / np.sqrt(variance)
    np.testing.assert_allclose(batch.advantages[:3], expected, rtol=1e-5)
    np.testing.assert_allclose(batch.returns, [11.5, 0, 22, 8])


def test_a_batch_of_monte_carlo_returns_by_hand() -> None:
    config = dataclasses.replace(PLAIN, estimator="monte_carlo")
    batch, _ = make_batch(config, READS_VALUES, ROLLOUT)
    # valid returns 1 + 0.5*2, 0 and 2: their mean is 4/3 and their variance 8/9
    expected = (np.array([2, 0, 2]) - 4 / 3) / np.sqrt(8 / 9)
    np.testing.assert_allclose(batch.returns[:3], expected, rtol=1e-5)
    np.testing.assert_allclose(batch.advantages[:3], expected - [10, 4, 20], rtol=1e-5)
