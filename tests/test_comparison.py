"""How two versions are compared row by row, worked out by hand."""

import math

import numpy as np
import pytest

from serving.policy.observations import Ranges
from serving.policy.outputs import PolicyOutputs
from serving.record.comparison import compare


def ranges_of(low: list[float], high: list[float]) -> Ranges:
    return Ranges(["x", "y"][: len(low)], np.array(low, np.float32), np.array(high, np.float32))


def outputs(logits: list[list[float]], values: list[float]) -> PolicyOutputs:
    array = np.array(logits, np.float32)
    odds = np.exp(array)
    greedy = array.argmax(axis=1)
    zeros = np.zeros(len(values), np.float32)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return PolicyOutputs(array, probabilities, greedy, greedy, zeros, np.array(values, np.float32))


def test_a_comparison_worked_out_by_hand() -> None:
    observations = np.array([[-9, 0], [-0.95, 5], [0.99, 10], [9, 99]], np.float32)
    even, three_to_one = [0.0, 0.0], [math.log(3), 0.0]
    served = outputs([even, three_to_one, three_to_one, [0.0, 1.0]], [1, 2, 3, 4])
    shadow = outputs([three_to_one, even, three_to_one, [1.0, 0.0]], [2, 1, 3, 6])
    table = compare(observations, served, shadow, ranges_of([-1, 0], [1, 10]))
    # KL of (1/2, 1/2) from (3/4, 1/4), the contrary, and of softmax(0, 1) from softmax(1, 0)
    kl_nats = 0.5 * math.log(4 / 3) + 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    kl_nats += math.tanh(0.5)
    sums = table.sums
    assert (sums.decisions, sums.agreements, sums.skipped, sums.failures) == (4, 3, 0, 0)
    assert sums.kl_nats == pytest.approx(kl_nats, rel=1e-6)
    assert (sums.value_difference, sums.absolute_value_difference) == (2, 4)
    assert table.decisions.tolist() == [[2, *[0] * 8, 2], [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]]
    assert table.disagreements.tolist() == [[0] * 9 + [1]] * 2


def test_a_number_that_never_varied_in_training_has_a_bin_at_each_end() -> None:
    ranges = ranges_of([1], [1])
    observations = np.array([[0], [1], [2]], np.float32)
    one = outputs([[0.0, 1.0]] * 3, [0] * 3)
    assert compare(observations, one, one, ranges).decisions.tolist() == [[2, *[0] * 8, 1]]


@pytest.mark.parametrize("which", ["logits", "value"])
def test_a_row_that_only_the_shadow_cannot_compute_is_skipped(which: str) -> None:
    observations = np.array([[0], [1e38], [2]], np.float32)
    served = outputs([[0.0, 1.0]] * 3, [1, 2, 3])
    logits, values = [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], [1.0, 2.0, 5.0]
    if which == "logits":
        logits[1][0] = math.nan
    else:
        values[1] = math.inf
    table = compare(observations, served, outputs(logits, values), ranges_of([0], [2]))
    sums = table.sums
    assert (sums.decisions, sums.agreements, sums.skipped, sums.failures) == (2, 1, 1, 0)
    assert sums.value_difference == 2
    assert table.decisions.tolist() == [[1, *[0] * 8, 1]]
    with pytest.raises(FloatingPointError):
        compare(observations[:1], served, outputs([[0.0, 1.0]], [math.nan]), ranges_of([0], [2]))
