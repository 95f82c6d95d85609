"""Histograms of the observations of an evaluation, as the policy card has them."""

from collections.abc import Sequence

import numpy as np
import pytest

from serving.policy.artefact import Histograms
from serving.record.drift import Bins
from training.histograms import MAX_NUMBERS, MIN_EPISODES, KeptSteps, histograms


def kept_of(steps: Sequence[Sequence[float]], episodes: int = MIN_EPISODES) -> KeptSteps:
    """What is kept of steps, each with the one number of every episode."""
    kept = KeptSteps(episodes)
    for numbers in steps:
        kept.add(np.array(numbers, np.float32)[:, np.newaxis], np.ones(len(numbers), bool))
    return kept


def histograms_of(column: list[float]) -> Histograms:
    found = histograms([kept_of([column])], MIN_EPISODES, len(column))
    assert found is not None
    return Histograms(**found._asdict())


def test_edges_are_deciles_and_shares_what_is_between_them() -> None:
    found = histograms_of([*range(1, 21)])
    # The deciles are 2, 4, ... 18; a value that is an edge is in the bin above it.
    assert found.edges == [[2, 4, 6, 8, 10, 12, 14, 16, 18]]
    assert found.shares == [pytest.approx([0.05, *[0.1] * 8, 0.15])]
    assert found.rows == 20


@pytest.mark.parametrize(
    ("column", "shares"),
    [
        ([7.0] * 20, [0, 1, 0]),
        ([0.0] * 19 + [1.0], [0, 0.95, 0.05]),
        ([0.0] * 10 + [1.0] * 10, [0, 0.5, 0, 0.5, 0]),
        ([3.4028234663852886e38] * 20, [0, 1]),  # nothing finite is larger
    ],
)
def test_a_value_that_is_many_rows_has_a_bin_of_its_own(
    column: list[float], shares: list[float]
) -> None:
    found = histograms_of(column)
    assert found.shares == [pytest.approx(shares)]
    bins = Bins(found)
    counts = bins.count(np.array([column], np.float32))
    np.testing.assert_allclose(counts / len(column), shares)


def test_another_constant_value_is_told_from_the_one_that_was_seen() -> None:
    bins = Bins(histograms_of([7.0] * 20))
    assert bins.count(np.array([[6.9, 7.0, 7.1, 7.1]], np.float32)).tolist() == [1, 1, 2]


def test_an_evaluation_that_would_tell_nothing_or_too_much_has_no_histograms() -> None:
    kept, wide = KeptSteps(MIN_EPISODES), KeptSteps(MIN_EPISODES)
    kept.add(np.zeros((1, 1), np.float32), np.ones(1, bool))
    wide.add(np.zeros((1, MAX_NUMBERS + 1), np.float32), np.ones(1, bool))
    assert histograms([kept], MIN_EPISODES - 1, 1) is None
    assert histograms([wide], MIN_EPISODES, 1) is None


def test_the_same_steps_are_left_out_however_episodes_are_shared_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.histograms.MAX_ROWS", 4 * MIN_EPISODES)

    def kept(lengths: list[int], first: int = 0) -> KeptSteps:
        steps = KeptSteps(MIN_EPISODES, first)
        for step in range(max(lengths)):
            running = np.array(lengths) > step
            steps.add(np.full((len(lengths), 1), step, np.float32), running)
        return steps

    lengths = [3, 9, 5, 30]
    together, shares = kept(lengths), [kept(lengths[:2]), kept(lengths[2:], 2)]
    assert len(together.steps) == 4
    assert histograms([together], MIN_EPISODES, 47) == histograms(shares, MIN_EPISODES, 47)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_what_a_policy_repeats_is_in_the_rows_that_are_kept_as_in_all(period: int) -> None:
    episodes = 200
    steps = [[step % period] * episodes for step in range(500)]
    found = histograms([kept_of(steps, episodes)], episodes, 500 * episodes)
    assert found is not None
    shares = [share for share in found.shares[0] if share > 0]
    assert shares == pytest.approx([1 / period] * period, abs=0.05)


def test_all_rows_are_kept_where_they_are_few() -> None:
    kept = kept_of([[step] * 100 for step in range(500)], 100)
    np.testing.assert_array_equal(
        np.concatenate([*kept.steps.values()])[:, 0], np.repeat(np.arange(500), 100)
    )


@pytest.mark.parametrize("sizes", [[70_000], [200, 69_800]])
def test_later_steps_of_very_many_episodes_are_kept_too(sizes: list[int]) -> None:
    shares, first = [], 0
    for size in sizes:
        shares.append(KeptSteps(70_000, first))
        for step in range(3):
            shares[-1].add(np.full((size, 1), step, np.float32), np.ones(size, bool))
        first += size
    found = histograms(shares, 70_000, 210_000)
    assert found is not None
    assert [share for share in found.shares[0] if share] == pytest.approx([1 / 3] * 3)
    assert sum(len(rows) for share in shares for rows in share.steps.values()) <= 65_536
