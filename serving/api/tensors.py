"""Tensors as other protocols write them: nested JSON lists, or raw bytes. No HTTP in here."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError

Array = npt.NDArray[Any]

# Every numeric datatype of the Open Inference Protocol, whose raw bytes are little-endian. NumPy
# has the same names, with "float" for FP.
_DATATYPES = "UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64"
DATATYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name.lower().replace("fp", "float")).newbyteorder("<")
    for name in _DATATYPES.split()
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}

# The Python types of a tensor's JSON elements; a boolean is not a number.
KINDS = {"float": frozenset({int, float}), "bool": frozenset({bool})}
_JSON_TYPES = {type(None): "null", bool: "boolean", str: "string", list: "array", dict: "object"}

# Far more dimensions than any tensor here has, and fewer than NumPy allows.
MAX_RANK = 32


class IrregularError(InvalidRequestError):
    """Nested lists that are not a tensor."""


def flatten(value: object, dtype: str) -> tuple[list[Any], tuple[int, ...]]:
    """Flatten nested lists level by level, without a Python loop over their elements.

    Returns:
        The elements, row-major and all of types in `KINDS[dtype]`, and the shape.

    Raises:
        IrregularError: the lists are ragged or nested too deeply, or an element has a wrong type.
    """
    elements: list[Any] = value if isinstance(value, list) else [value]
    shape: tuple[int, ...] = (len(value),) if isinstance(value, list) else ()
    while (types := set(map(type, elements))) == {list}:
        lengths = set(map(len, elements))
        if len(lengths) != 1 or len(shape) == MAX_RANK:
            raise IrregularError("the lists are ragged or nested too deeply")
        shape = (*shape, lengths.pop())
        elements = list(chain.from_iterable(elements))
    if not types <= KINDS[dtype]:
        place, wrong = next((i, e) for i, e in enumerate(elements) if type(e) not in KINDS[dtype])
        expected = "numbers" if dtype == "float" else "booleans"
        found = _JSON_TYPES.get(type(wrong), "number")
        raise IrregularError(f"data[{place}]: expected only {expected}, got {found}")
    return elements, shape


def numbers_from_json(data: list[Any], datatype: str, shape: Sequence[int]) -> Array:
    """Make a tensor of a datatype from JSON numbers, flat in row-major order or nested.

    Returns:
        Float64, like all numbers in JSON; float16 for FP16.

    Raises:
        InvalidRequestError: they are not numbers, not as many as the shape has, or the
            datatype cannot hold one.
    """
    elements, nested = flatten(data, "float")
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
        low, high = limits.min, limits.max
        fits = (numbers == np.rint(numbers)) & (numbers >= low) & (numbers <= high)
        if dtype.itemsize == 8:  # float64 rounds these limits, and numbers just beyond them
            fits &= [low <= element <= high for element in elements]
        if not fits.all():
            place = int(np.argmin(fits))
            raise InvalidRequestError(f"data[{place}]: {elements[place]!r} is not {datatype}")
    elif datatype == "FP16":
        with np.errstate(over="ignore"):
            numbers = numbers.astype(dtype)
    return numbers.reshape(shape)


def numbers_from_bytes(raw: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """Make a tensor of a datatype from raw bytes in row-major order, without a copy.

    Raises:
        InvalidRequestError: there are not as many bytes as the shape needs.
    """
    dtype = DATATYPES[datatype]
    size = math.prod(shape) * dtype.itemsize
    if len(raw) != size:
        raise InvalidRequestError(
            f"{len(raw)} bytes, but {datatype} of shape {list(shape)} has {size}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)
