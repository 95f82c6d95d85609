"""The statistics of several runs, by hand."""

import numpy as np
import pytest

from training.scores import interquartile_mean, probability_of_improvement


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0])) == 2.5
    # Of five, one on each side: a quarter, rounded down.
    assert interquartile_mean(np.array([9.0, 1.0, 5.0, 3.0, -7.0])) == 3.0
    assert interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0
    np.testing.assert_array_equal(
        interquartile_mean(np.array([[0.0, 1.0, 2.0, 9.0], [4.0, 4.0, 4.0, 8.0]])), [1.5, 4.0]
    )


def test_the_probability_of_improvement_is_of_all_pairs() -> None:
    # 3 beats both, 1 beats neither and equals one: (2 + 1/2) of 4.
    assert probability_of_improvement(np.array([3.0, 1.0]), np.array([1.0, 2.0])) == 0.625
    assert probability_of_improvement(np.array([2.0, 2.0]), np.array([2.0])) == 0.5
    better, worse = np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0])
    assert probability_of_improvement(better, worse) == 1.0
    assert probability_of_improvement(worse, better) == 0.0
    both = probability_of_improvement(np.stack([better, better]), np.stack([worse, worse + 5]))
    assert both == pytest.approx([1.0, 1 / 3])  # 7 beats 6 and equals 7, 6 equals 6: 2 of 6
