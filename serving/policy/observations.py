"""The rows of a request as an array, validated and compared with training. No HTTP here."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError
from serving.schemas import Row

FloatArray = npt.NDArray[np.float32]
# `B` rows: an array `[B, O]`, or for each a list of numbers or a mapping from names to numbers.
Rows = Sequence[Row] | npt.NDArray[Any]

MAX_WARNINGS = 10
# Matrix kernels use another code path for the last rows of a call, or of a thread's part of it, if
# these do not fill a register block, such as 6 rows. So the policy is called with up to 16 rows or
# with a multiple of this, which leaves no such rows: 2, 3, 4, 6, 8, 12, 16 and 24 divide it.
ROW_BLOCK = 48
# The smallest number that rounds to infinity: half a step above the largest float32.
FLOAT32_OVERFLOW = 2.0**128 - 2.0**103


def to_array(rows: Rows, names: list[str], max_rows: int) -> FloatArray:
    """Turn 1 to `max_rows` rows of features with these names into observations `[B, O]`.

    Numbers of other types than float32 are first converted to float64, like JSON's, then rounded.

    Raises:
        InvalidRequestError: no rows or too many, a row with the wrong length or wrong
            names, or a number that float32 cannot represent.
    """
    if isinstance(rows, np.ndarray):
        require_shape(rows.shape, names, max_rows)
        numbers = rows if rows.dtype == np.float32 else rows.astype(np.float64, copy=False)
    else:
        require_rows(len(rows), max_rows)
        try:
            numbers = np.array(rows, np.float64)
        except (TypeError, ValueError):  # rows by name, or of different lengths
            numbers = np.empty(0)
        if numbers.shape != (len(rows), len(names)):
            # One by one, to report which row is wrong.
            ordered = [_in_order(index, row, names) for index, row in enumerate(rows)]
            numbers = np.array(ordered, np.float64)
    # One reduction suffices: the maximum of an array that contains NaN is NaN.
    if not float(np.abs(numbers).max()) < FLOAT32_OVERFLOW:
        row, column = np.argwhere(~(np.abs(numbers, dtype=np.float64) < FLOAT32_OVERFLOW))[0]
        value = numbers[row, column].item()
        what = "beyond float32" if math.isfinite(value) else "not finite"
        raise InvalidRequestError(f"observations[{row}].{names[column]}: {value!r} is {what}")
    return numbers.astype(np.float32, copy=False)


def require_shape(shape: Sequence[int], names: list[str], max_rows: int) -> None:
    """Raise `InvalidRequestError` unless the shape is `[B, O]` with `B` from 1 to `max_rows`."""
    if len(shape) != 2 or shape[1] != len(names):
        raise InvalidRequestError(
            f"observations: the shape is {list(shape)[:9]}, expected [rows, {len(names)}]: "
            + ", ".join(names)
        )
    require_rows(shape[0], max_rows)


def require_rows(rows: int, max_rows: int) -> None:
    """Raise `InvalidRequestError` unless there are 1 to `max_rows` rows."""
    if not 1 <= rows <= max_rows:
        raise InvalidRequestError(f"observations: {rows} rows, expected 1 to {max_rows}")


def _in_order(index: int, row: Row, names: list[str]) -> list[float]:
    if isinstance(row, dict):
        missing = [name for name in names if name not in row]
        unknown = [name for name in row if name not in names]
        if missing or unknown:
            problems = [f"{name!r} is missing" for name in missing]
            problems += [f"{name!r} is unknown" for name in unknown]
            raise InvalidRequestError(
                f"observations[{index}]: {', '.join(problems)}; the names are {', '.join(names)}"
            )
        return [row[name] for name in names]
    if len(row) != len(names):
        raise InvalidRequestError(
            f"observations[{index}]: {len(row)} numbers, expected {len(names)}: {', '.join(names)}"
        )
    return row


class Ranges(NamedTuple):
    """The range that training saw for each of the `O` features of an observation."""

    names: list[str]
    low: FloatArray  # [O]
    high: FloatArray  # [O]


def is_outside(observations: FloatArray, seen: Ranges) -> npt.NDArray[np.bool_]:
    """Which numbers of `[B, O]` are outside the ranges that training saw."""
    # Feature by feature: NumPy compares long columns faster than many short rows.
    columns = np.ascontiguousarray(observations.T)
    outside: npt.NDArray[np.bool_] = (columns < seen.low[:, None]) | (columns > seen.high[:, None])
    return outside.T


def out_of_range_warnings(observations: FloatArray, seen: Ranges) -> list[str]:
    """One line for each of the first rows of `[B, O]` outside the ranges, and one for the rest."""
    outside = is_outside(observations, seen)
    rows = np.flatnonzero(outside.any(axis=1))
    warnings = []
    for row in rows[:MAX_WARNINGS]:
        parts = [
            f"{seen.names[column]} {observations[row, column]:.4g} is outside "
            f"{seen.low[column]:.4g} to {seen.high[column]:.4g}"
            for column in np.flatnonzero(outside[row])
        ]
        warnings.append(f"observations[{row}]: {', '.join(parts)}, which training never saw")
    if len(rows) > MAX_WARNINGS:
        warnings.append(f"and {len(rows) - MAX_WARNINGS} more rows")
    return warnings
