"""Tensors as other protocols write them: nested JSON lists, or raw bytes. No HTTP in here."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError

Array = npt.NDArray[Any]

# Every numeric datatype of the Open Inference Protocol; raw bytes are little-endian.
DATATYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}

NUMBER = frozenset({int, float})
BOOLEAN = frozenset({bool})
_JSON_TYPES = {type(None): "null", bool: "boolean", str: "string", list: "array", dict: "object"}

# Far more dimensions than any tensor here has, and fewer than NumPy allows.
MAX_RANK = 32


class IrregularError(InvalidRequestError):
    """Nested lists that are no tensor."""


def flatten(value: object, kinds: frozenset[type]) -> tuple[list[Any], tuple[int, ...]]:
    """Take nested lists apart, level by level, without a Python loop over their elements.

    Args:
        value: nested lists, or one element.
        kinds: types that elements may have, of which a boolean is not a number.

    Returns:
        The elements, row-major, and the shape.

    Raises:
        IrregularError: the lists are ragged or nested too deeply, or an element is of another
            type, of which the first is named.
    """
    elements: list[Any] = value if isinstance(value, list) else [value]
    shape: tuple[int, ...] = (len(value),) if isinstance(value, list) else ()
    while (types := set(map(type, elements))) == {list}:
        lengths = set(map(len, elements))
        if len(lengths) != 1 or len(shape) == MAX_RANK:
            raise IrregularError("the lists are ragged or nested too deeply")
        shape = (*shape, lengths.pop())
        elements = list(chain.from_iterable(elements))
    if not types <= kinds:
        place, wrong = next((i, e) for i, e in enumerate(elements) if type(e) not in kinds)
        expected = "numbers" if kinds == NUMBER else "booleans"
        found = _JSON_TYPES.get(type(wrong), "number")
        raise IrregularError(f"data[{place}]: expected only {expected}, got {found}")
    return elements, shape


def numbers_from_json(data: list[Any], datatype: str, shape: Sequence[int]) -> Array:
    """The tensor of a datatype that JSON numbers say, flat in row-major order or nested.

    Returns:
        Float64, as all numbers in JSON, or float16.

    Raises:
        InvalidRequestError: they are no numbers, not as many as the shape has, or the
            datatype cannot hold one.
    """
    elements, nested = flatten(data, NUMBER)
    count = math.prod(shape)
    if nested not in ((count,), tuple(shape)):
        raise InvalidRequestError(
            f"data has the shape {list(nested)}, expected {list(shape)} or {count} numbers"
        )
    try:
        numbers: Array = np.array(elements, np.float64)
    except OverflowError:
        raise InvalidRequestError("data has a number beyond float64") from None
    dtype = DATATYPES[datatype]
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        fits = (numbers == np.rint(numbers)) & (numbers >= limits.min) & (numbers <= limits.max)
        if not fits.all():
            place = int(np.argmin(fits))
            raise InvalidRequestError(f"data[{place}]: {numbers[place].item()!r} is not {datatype}")
    elif datatype == "FP16":
        with np.errstate(over="ignore"):
            numbers = numbers.astype(dtype)
    return numbers.reshape(shape)


def numbers_from_bytes(raw: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """The tensor of a datatype in raw bytes, row-major, without a copy.

    Raises:
        InvalidRequestError: there are not as many bytes as the shape needs.
    """
    dtype = DATATYPES[datatype]
    size = math.prod(shape) * dtype.itemsize
    if len(raw) != size:
        raise InvalidRequestError(
            f"{len(raw)} bytes, but {datatype} of shape {list(shape)} has {size}"
        )
    numbers: Array = np.frombuffer(raw, dtype)
    return numbers.reshape(shape)
