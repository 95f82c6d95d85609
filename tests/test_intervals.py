"""Confidence intervals by hand, and how often they cover the mean."""

import math

import numpy as np
import pytest

from training.intervals import betting_interval, bootstrap_interval, mean
from training.types import DoubleArray


def test_a_hundred_perfect_episodes_still_leave_a_doubt() -> None:
    low, high = betting_interval(np.full(100, 500.0), (0, 500))
    # Bets of everything would disprove a mean of m if (500 / m)^100 >= 40: 500 / 40^0.01 = 481.9.
    assert 481 < low < 481.9
    assert high == 500
    # By symmetry.
    mirrored = betting_interval(np.zeros(100), (0, 500))
    assert mirrored == pytest.approx((500 - high, 500 - low), abs=1e-6)


def test_one_episode_of_the_largest_return_disproves_next_to_nothing() -> None:
    # The only bet is sqrt(2 log 40 / (1/4)) = 5.43, cut to 0.99 / m: 1 + 0.99 (1 - m) / m >= 40
    # needs m <= 0.99 / 39.99 where that is cut, and else 1 + 5.43 (1 - m) >= 40, which is never.
    low, high = betting_interval(np.array([1.0]), (0, 1))
    assert low == 0
    assert high == 1


def test_three_returns_disprove_a_mean_of_zero_and_two_do_not() -> None:
    # Of two, at a mean of 0, with variances 1/4 and (1/4 + 1/16) / 2 = 5/32 known before:
    # bets sqrt(log 40 / (1/4)) = 3.84 and sqrt(log 40 / (5/32)) = 4.86; 4.84 * 5.86 = 28.4 < 40.
    assert betting_interval(np.ones(2), (0, 1)) == (0, 1)
    # Of three, the variance before the third is (1/4 + 1/16 + 1/36) / 3 = 0.1134: bets 3.14,
    # 3.97 and 4.66; 4.14 * 4.97 * 5.66 = 116 >= 40.
    low, high = betting_interval(np.ones(3), (0, 1))
    assert 0 < low < high == 1


def largest_wealth(returns: list[float], guess: float) -> float:
    """The most that bets on more than a guess ever leave, in plain Python."""
    wealth = largest = 1.0
    total, squares, variance = 1 / 2, 1 / 4, 1 / 4
    for count, value in enumerate(returns, 1):
        bet = math.sqrt(2 * math.log(40) / (len(returns) * variance))  # of what is known before
        wealth *= 1 + min(bet, 0.99 / guess) * (value - guess)
        largest = max(largest, wealth)
        total += value
        squares += (value - total / (count + 1)) ** 2
        variance = squares / (count + 1)
    return largest


def test_the_limits_are_the_last_means_that_bets_on_what_was_known_before_disprove() -> None:
    returns = np.random.default_rng(3).beta(8, 2, 60)
    low, high = betting_interval(returns, (0, 1))
    for unit, limit in ((returns, low), (1 - returns, 1 - high)):
        wealth = [largest_wealth(unit.tolist(), limit + shift) for shift in (-1e-6, 1e-6)]
        assert wealth[0] > 40 > wealth[1]


def test_an_interval_is_moved_and_scaled_with_its_returns() -> None:
    unit = np.random.default_rng(0).random(50)
    low, high = betting_interval(unit, (0, 1))
    scaled = betting_interval(300 * unit - 100, (-100, 200))
    assert scaled == pytest.approx((300 * low - 100, 300 * high - 100))
    assert 0 < low < unit.mean() < high < 1


def test_more_episodes_give_a_narrower_interval() -> None:
    returns = np.random.default_rng(0).random(10_000)
    widths = [np.ptp(betting_interval(returns[:count], (0, 1))) for count in (100, 1_000, 10_000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    # Of a normal distribution: 2 * 1.96 / sqrt(12 * 10,000) = 0.0113.
    assert widths[2] < 1.25 * 0.0113


def rare_failures(rng: np.random.Generator) -> DoubleArray:
    """One episode in a hundred fails at once."""
    return np.where(rng.random(100) < 0.01, 10.0, 500.0)


def exponential(rng: np.random.Generator) -> DoubleArray:
    """Times to failure, cut by the time limit."""
    return np.minimum(rng.exponential(400, 100), 500.0)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [(rare_failures, 0.99 * 500 + 0.01 * 10), (exponential, 400 * (1 - np.exp(-500 / 400)))],
)
def test_betting_covers_the_mean(draw: object, expected: float) -> None:
    assert callable(draw)
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        low, high = betting_interval(draw(rng), (0, 500))
        covered += low <= expected <= high
    # 95% of 400 are 380, with a standard deviation of 4.4.
    assert covered >= 371


def test_the_bootstrap_does_not_where_failures_are_rare() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        low, high = bootstrap_interval(mean, rare_failures(rng))
        covered += low <= 495.1 <= high
    # In 0.99^100 = 37% of all samples nothing fails, and the interval is 500 to 500.
    assert covered < 300


def test_the_bootstrap_by_hand() -> None:
    # Two draws of two: the mean is 1 or 3 with probability 1/4 each.
    assert bootstrap_interval(mean, np.array([1.0, 3.0])) == (1.0, 3.0)
    assert bootstrap_interval(mean, np.full(5, 7.0)) == (7.0, 7.0)


def test_the_bootstrap_leaves_out_a_fortieth_on_each_side() -> None:
    # Resampled sums are binomial: of 100 halves, 2.8% are at most 40 and 1.8% at most 39.
    found = bootstrap_interval(mean, np.repeat([0.0, 1.0], 50))
    assert found == pytest.approx((0.4, 0.6), abs=0.011)
