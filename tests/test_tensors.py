"""A number is the same observation however it was written."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from serving.api.tensors import (
    DATATYPES,
    flatten,
    numbers_from_bytes,
    numbers_from_json,
)
from serving.errors import InvalidRequestError
from serving.policy.observations import to_array

NAMES = ["a", "b", "c", "d"]


def rows_of(datatype: str) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    return st.integers(1, 5).flatmap(lambda rows: arrays(DATATYPES[datatype], (rows, 4)))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(DATATYPES)).flatmap(lambda name: st.tuples(st.just(name), rows_of(name)))
)
def test_bytes_flat_json_and_nested_json_are_the_same_rows(drawn: tuple[str, Any]) -> None:
    datatype, array = drawn
    raw = numbers_from_bytes(memoryview(array.tobytes()), datatype, array.shape)
    flat = numbers_from_json(array.ravel().tolist(), datatype, array.shape)
    nested = numbers_from_json(array.tolist(), datatype, array.shape)
    try:
        # As /act reads JSON: every number a float64, and float32 from there.
        expected = to_array(array.astype(np.float64).tolist(), NAMES, 10)
    except InvalidRequestError:
        for numbers in (raw, flat, nested):
            with pytest.raises(InvalidRequestError):
                to_array(numbers, NAMES, 10)
    else:
        for numbers in (raw, flat, nested):
            observations = to_array(numbers, NAMES, 10)
            np.testing.assert_array_equal(observations, expected, strict=True)


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_whole_numbers_are_rounded_as_json_numbers_are(datatype: str) -> None:
    # Halfway between two float32 once it is a float64, and above that before.
    number = 2**54 + 2**30 + 1
    array = np.full((1, 4), number, DATATYPES[datatype])
    expected = to_array([[float(number)] * 4], NAMES, 1)
    assert expected[0, 0] == 2**54
    raw = numbers_from_bytes(memoryview(array.tobytes()), datatype, (1, 4))
    for numbers in (raw, numbers_from_json([number] * 4, datatype, (1, 4))):
        np.testing.assert_array_equal(to_array(numbers, NAMES, 1), expected, strict=True)


@pytest.mark.parametrize(
    ("datatype", "least", "greatest"),
    [("INT64", -(2**63), 2**63 - 1), ("UINT64", 0, 2**64 - 1)],
)
def test_whole_numbers_of_64_bits_have_exact_limits(
    datatype: str, least: int, greatest: int
) -> None:
    numbers_from_json([0, least, greatest], datatype, [3])
    for beyond in (least - 1, greatest + 1, float(greatest)):
        with pytest.raises(InvalidRequestError, match=rf"data\[1\]: .* is not {datatype}"):
            numbers_from_json([0, beyond], datatype, [2])


@given(
    arrays(np.float64, array_shapes(min_dims=0, max_dims=4, max_side=4), elements=st.floats(-1, 1))
)
def test_nested_lists_are_taken_apart(array: Any) -> None:
    assert flatten(array.tolist(), "float") == (array.ravel().tolist(), array.shape)


@pytest.mark.parametrize("ragged", [[[1], [1, 2]], [[], [1]], [[[1]], [[1, 2]]]])
def test_ragged_lists_are_refused(ragged: Any) -> None:
    with pytest.raises(InvalidRequestError, match="ragged"):
        flatten(ragged, "float")


@pytest.mark.parametrize("mixed", [[1, [1]], [[1], 1], [[[1], 1]], [True], ["1"], [None], [{}]])
def test_what_are_not_only_numbers_is_refused(mixed: Any) -> None:
    with pytest.raises(InvalidRequestError, match="expected only numbers"):
        flatten(mixed, "float")
