"""Advantages and returns against values worked out by hand."""

import numpy as np
import pytest

from training.advantages import generalized_advantages, monte_carlo_returns, standardize
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
    np.testing.assert_allclose(standardized[:2], column(-1, 1), atol=1e-6)  # mean 2, deviation 1
