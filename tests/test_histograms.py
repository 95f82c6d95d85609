"""Histograms of the observations of an evaluation, as the policy card has them."""

import numpy as np
import pytest

from serving.policy.artefact import Histograms
from serving.record.drift import Bins
from training.histograms import MAX_NUMBERS, MIN_EPISODES, KeptSteps, histograms


def histograms_of(column: list[float]) -> Histograms:
    kept = KeptSteps(MIN_EPISODES)
    kept.add(0, np.array(column, np.float32)[:, np.newaxis])
    found = histograms([kept], MIN_EPISODES, len(column))
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
    kept.add(0, np.zeros((1, 1), np.float32))
    wide.add(0, np.zeros((1, MAX_NUMBERS + 1), np.float32))
    assert histograms([kept], MIN_EPISODES - 1, 1) is None
    assert histograms([wide], MIN_EPISODES, 1) is None


def test_steps_are_left_out_evenly_and_alike_in_every_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.histograms.MAX_ROWS", 4 * MIN_EPISODES)

    def kept(lengths: list[int]) -> KeptSteps:
        steps = KeptSteps(MIN_EPISODES)
        for step in range(max(lengths)):
            running = [length for length in lengths if length > step]
            steps.add(step, np.full((len(running), 1), step, np.float32))
        return steps

    lengths = [3, 9, 5, 30]
    together, shares = kept(lengths), [kept(lengths[:2]), kept(lengths[2:])]
    assert [one.interval for one in (together, *shares)] == [8, 4, 8]
    assert histograms([together], MIN_EPISODES, 47) == histograms(shares, MIN_EPISODES, 47)
    rows = np.concatenate([one.rows(8) for one in shares])
    assert sorted(rows[:, 0]) == [0, 0, 0, 0, 8, 8, 16, 24]
