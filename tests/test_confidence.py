"""The confidence sequence for the difference of two mean returns."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.comparison_power import (
    BOUNDS,
    episodes_to_better,
    play_with_mean,
    streams,
    wrong_answers,
)
from serving.record.confidence import (
    BETS,
    DISPROOF,
    DoubleArray,
    difference,
    log_capital,
    paired_differences,
)


@pytest.fixture(scope="module")
def returns() -> dict[int, DoubleArray]:
    """Of policies with these mean returns."""
    return {mean: play_with_mean(mean) for mean in (260, 460, 480)}


def pairs_of(text: str) -> list[float]:
    """The pairs of episodes such as `c10 x20`: x is the challenger."""
    episodes = text.split()
    found = paired_differences(
        [one[0] == "x" for one in episodes], [float(one[1:]) for one in episodes]
    )
    return list(found)


@pytest.mark.parametrize(
    ("episodes", "differences"),
    [
        ("", []),
        ("x1", []),
        ("c1 c2 c3", []),
        ("c10 x40", [30]),
        ("c10 c20 x40", [25]),  # the mean of all of the champion that wait
        ("c10 c20 x40 x50 c30", [25, 20]),
        ("x10 x20 x30 c12", [8]),  # the champion has had fewer
        ("c1 x2 c3 x5 c7 x11", [1, 2, 4]),  # no return is in two pairs
    ],
)
def test_each_episode_is_in_one_pair_with_all_that_wait(
    episodes: str, differences: list[float]
) -> None:
    assert pairs_of(episodes) == differences


def test_the_capital_is_what_bets_on_each_value_leave() -> None:
    unit, mean = [0.9, 0.2, 0.75, 1.0, 0.0], 0.6
    expected = []
    for end in range(1, len(unit) + 1):
        wealth = 0.0
        for bet in BETS:
            part = 1 / len(BETS)
            for value in unit[:end]:
                part *= 1 + bet * (value - mean) / mean
            wealth += part
        expected.append(math.log(wealth))
    assert np.allclose(log_capital(np.array(unit), mean), expected)


def test_bets_are_fair_if_the_mean_is_true() -> None:
    # Of two values with this mean, after all sequences of eight: no luck is involved.
    low, high, chance = 0.25, 0.875, 0.4
    mean = chance * high + (1 - chance) * low
    total = 0.0
    for bits in range(2**8):
        is_high = [bool(bits >> place & 1) for place in range(8)]
        chances = math.prod(chance if one else 1 - chance for one in is_high)
        unit = np.array([high if one else low for one in is_high])
        total += chances * math.exp(log_capital(unit, mean)[-1])
    assert total == pytest.approx(1)


def test_the_interval_has_all_differences_that_no_bet_disproved() -> None:
    rng = random.Random(1)
    is_challenger = [rng.random() < 0.4 for _ in range(300)]
    returns = [rng.uniform(100, 300) + 80 * one for one in is_challenger]
    found = difference(is_challenger, returns, (100, 400))
    # In plain Python, at every difference of a grid.
    values = [float(value) for value in paired_differences(is_challenger, returns)]
    kept = []
    for step in range(-290, 291):
        mean = (step / 300 + 1) / 2
        largest = 0.0
        for sign in (1, -1):
            parts = [1.0] * len(BETS)
            for value in values:
                unit, other = (sign * value / 300 + 1) / 2, mean if sign == 1 else 1 - mean
                parts = [
                    part * (1 + bet * (unit / other - 1))
                    for part, bet in zip(parts, BETS, strict=True)
                ]
                largest = max(largest, sum(parts) / len(parts))
        if math.log(largest) < DISPROOF:
            kept.append(step)
    assert (math.floor(found.low) + 1, math.ceil(found.high) - 1) == (kept[0], kept[-1])
    assert found.answer == "better"
    assert found.low < 80 < found.high


@pytest.mark.long
def test_the_interval_only_gets_narrower_and_an_answer_stays(
    returns: dict[int, DoubleArray],
) -> None:
    stream = next(streams(returns[260], returns[480], 0.5, 400, seed=3))
    looks = [
        difference(stream.is_challenger[:count], stream.returns[:count], BOUNDS)
        for count in range(401)
    ]
    assert (looks[0].low, looks[0].high) == (-500, 500)
    for before, after in pairwise(looks):
        assert before.low <= after.low < after.high <= before.high
    answers = [look.answer for look in looks]
    first = answers.index("better")
    assert answers == ["not yet known"] * first + ["better"] * (401 - first)
    assert first == episodes_to_better(stream)


@pytest.mark.long
@pytest.mark.parametrize(("mean", "share"), [(480, 0.5), (480, 0.1), (260, 0.5), (260, 0.1)])
def test_equal_policies_have_an_answer_in_at_most_5_percent_however_often_one_looks(
    returns: dict[int, DoubleArray], mean: int, share: float
) -> None:
    assert wrong_answers(returns[mean], share, 400, 1_000, seed=4) <= 20


@pytest.mark.long
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_policy_that_is_20_returns_better_is_found(
    returns: dict[int, DoubleArray], share: float
) -> None:
    drawn = streams(returns[460], returns[480], share, 20_000, seed=5)
    needed = [episodes_to_better(next(drawn)) for _ in range(10)]
    assert max(needed) < 20_000
    # And worse, seen from the other side.
    stream = next(streams(returns[480], returns[460], share, 20_000, seed=5))
    found = difference(*stream, BOUNDS)
    assert found.answer == "worse"
    assert found.low < -20 < found.high < 0


@pytest.mark.long
def test_what_is_left_to_do_is_estimated_within_a_factor_of_three(
    returns: dict[int, DoubleArray],
) -> None:
    drawn = streams(returns[460], returns[480], 0.5, 20_000, seed=6)
    ratios = []
    for _ in range(20):
        stream = next(drawn)
        needed = int(episodes_to_better(stream))
        half = needed // 2
        found = difference(stream.is_challenger[:half], stream.returns[:half], BOUNDS)
        assert found.answer == "not yet known"
        if found.more_episodes is not None:
            ratios.append(found.more_episodes / (needed - half))
    assert 1 / 3 < np.median(ratios) < 3


def test_no_estimate_is_given_without_a_difference_or_with_few_episodes() -> None:
    assert difference([], [], BOUNDS).more_episodes is None
    assert difference([True, False] * 5, [400.0, 100.0] * 5, BOUNDS).more_episodes is None
    assert difference([True, False] * 50, [100.0] * 100, BOUNDS).more_episodes is None


def test_how_many_more_episodes_are_needed_is_estimated_by_the_best_bet() -> None:
    # Ten pairs in which the challenger has 100 more of 500: a bet gains a fifth of itself.
    found = difference([False, True] * 10, [100.0, 200.0] * 10, (0, 500))
    assert found.answer == "not yet known"
    bets = [0.9, 0.45, 0.225, 0.1125, 0.05625, 0.028125]
    capital = sum((1 + 0.2 * bet) ** 10 for bet in bets) / 6
    more_pairs = math.log(40 / capital) / math.log(1 + 0.2 * 0.9)
    assert found.more_episodes == math.ceil(2 * more_pairs)


def test_a_difference_that_has_changed_is_no_answer() -> None:
    is_challenger = [index % 2 == 0 for index in range(400)]
    # By 80 better at first, and by 80 worse then, for longer.
    returns = [90 if new == (index < 100) else 10 for index, new in enumerate(is_challenger)]
    found = difference(is_challenger, returns, (0, 100))
    assert found.low > 0 > found.high
    assert (found.answer, found.more_episodes) == ("not yet known", None)
