"""Outputs as JSON."""

from typing import Any

import msgspec
import numpy.typing as npt
import orjson

from serving.policy.decide import ActResult


def encode(content: object) -> bytes:
    """Encode JSON; NumPy arrays become lists, float32 in its shortest form, and structs objects."""
    return orjson.dumps(content, msgspec.to_builtins, orjson.OPT_SERIALIZE_NUMPY)


class Columns(dict[str, list[bytes]]):
    """The rows of a batch's observations and outputs as JSON, by name: made when asked for.

    Rows of a matrix are without their brackets, and float32 keeps its shortest form. For requests
    of one row, a column is written once and cut; a request of more rows is written by itself.
    """

    def __init__(self, result: ActResult) -> None:
        """Take a result of the batch."""
        super().__init__()
        self._result = result

    def __missing__(self, name: str) -> list[bytes]:
        column = self._column(name)
        text = encode(column)
        rows = text[1:-1].split(b",") if column.ndim == 1 else text[2:-2].split(b"],[")
        self[name] = rows
        return rows

    def numbers(self, name: str, result: ActResult) -> bytes:
        """The numbers of an output for a request's rows, without brackets."""
        if result.stop - result.start == 1:
            return self[name][result.start]
        return encode(self._column(name)[result.start : result.stop].ravel())[1:-1]

    def rows(self, name: str, result: ActResult) -> bytes:
        """The rows of a matrix for a request, without the outer brackets."""
        if result.stop - result.start == 1:
            return b"[%b]" % self[name][result.start]
        return encode(self._column(name)[result.start : result.stop])[1:-1]

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name == "observations":
            return self._result.observations
        column: npt.NDArray[Any] = getattr(self._result.batch, name)
        return column
