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
    """A batch's observations and outputs as JSON rows, by name; encoded on first use.

    Matrix rows have no brackets, and float32 is in its shortest form. For one-row requests, a
    column is encoded once and split; a request with more rows is encoded by itself.
    """

    def __init__(self, result: ActResult) -> None:
        """Use the batch of this result; any of the batch's results will do."""
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
