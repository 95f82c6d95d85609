"""Converting rows to arrays, and warnings about them."""

import math

import numpy as np
import pytest

from serving.errors import InvalidRequestError
from serving.policy.observations import Ranges, out_of_range_warnings, to_array

KNOWN = Ranges(["x", "y"], np.array([-1, -2], np.float32), np.array([1, 2], np.float32))


def test_lists_and_named_rows_become_float32_rows() -> None:
    array = to_array([[1, 2], {"y": 4.0, "x": 3.0}], KNOWN.names, max_rows=2)
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 2], [3, 4]]


def test_one_row_more_than_allowed_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="3 rows, expected 1 to 2"):
        to_array([[1, 2]] * 3, KNOWN.names, max_rows=2)


def test_the_largest_float32_is_accepted_and_a_larger_number_is_not() -> None:
    largest = 3.4028234663852886e38
    assert to_array([[largest, -largest]], KNOWN.names, 1)[0, 0] == np.float32(largest)
    with pytest.raises(InvalidRequestError, match=r"observations\[1\]\.y: -3\.5e\+38 is beyond"):
        to_array([[0, 0], [0, -3.5e38]], KNOWN.names, 2)


def test_what_rounds_to_the_largest_float32_is_accepted_and_what_rounds_to_infinity_is_not() -> (
    None
):
    # Halfway between it, 2^128 - 2^104, and 2^128, which would be next: ties go to the even one.
    halfway = 2.0**128 - 2.0**103
    below = to_array([[math.nextafter(halfway, 0), 0]], KNOWN.names, 1)
    assert below[0, 0] == 2.0**128 - 2.0**104
    for number in (halfway, -halfway):
        with pytest.raises(
            InvalidRequestError, match=r"observations\[0\]\.x: .* is beyond float32"
        ):
            to_array([[number, 0]], KNOWN.names, 1)


def test_the_bounds_of_training_are_inside() -> None:
    inside = np.array([[1, -2], [-1, 2]], np.float32)
    assert out_of_range_warnings(inside, KNOWN) == []
    outside = np.array([[0, 0], [1.5, -2.5]], np.float32)
    assert out_of_range_warnings(outside, KNOWN) == [
        "observations[1]: x 1.5 is outside -1 to 1, y -2.5 is outside -2 to 2, "
        "which training never saw"
    ]


@pytest.mark.parametrize(("rows", "lines"), [(10, 10), (11, 11), (13, 11)])
def test_ten_rows_are_told_one_by_one_and_the_rest_are_counted(rows: int, lines: int) -> None:
    warnings = out_of_range_warnings(np.full((rows, 2), 9, np.float32), KNOWN)
    assert len(warnings) == lines
    assert warnings[9].startswith("observations[9]: x 9 is outside -1 to 1")
    assert warnings[10:] == ([] if rows == 10 else [f"and {rows - 10} more rows"])
