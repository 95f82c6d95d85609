"""What every input format provides: blocks of rows, and the position of each row."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from serving.errors import InvalidRequestError
from serving.policy.observations import ROW_BLOCK, Rows, to_array
from serving.schemas import Row

# The policy computes no other block size faster, and blocks of all formats take only a few MB.
BLOCK_ROWS = 341 * ROW_BLOCK


class ScoreError(Exception):
    """The rows cannot be read or decided; the message names the file and the place."""


class Block(NamedTuple):
    """Consecutive rows of a file, fewer than some ten thousand."""

    rows: Rows
    first: int  # place of the first row, in the unit of `Source.place`
    size: int  # of these rows, in the unit of `Source.total`


class Source(NamedTuple):
    """A file of observations, which is read while `blocks` is iterated.

    Attributes:
        path: of the file.
        place: what the position of a row counts: "line" (from 1), or "row" (from 0).
        total: the file's size, in bytes of text or in rows of an array.
        blocks: may raise `RowError`, `ScoreError` and `OSError`.
    """

    path: Path
    place: str
    total: int
    blocks: Iterator[Block]


class RowError(Exception):
    """A row is invalid; the caller reports it with the name of its file."""

    def __init__(self, place: int, detail: str) -> None:
        super().__init__(detail)
        self.place, self.detail = place, detail


def require_names(columns: Sequence[str], names: list[str]) -> None:
    """Raise a `ValueError` with the reason unless the columns have these names, in any order."""
    for name, count in Counter(columns).items():
        if count > 1:
            raise ValueError(f"the name {name!r} occurs {count} times")
    require_form(dict.fromkeys(columns, 0.0), names)


def require_form(row: Row, names: list[str]) -> None:
    """Raise a `ValueError` with the reason unless a row has these features, with any values."""
    if len(row) == len(names) and (isinstance(row, list) or row.keys() == set(names)):
        return
    try:
        to_array([row], names, 1)  # for its error
    except InvalidRequestError as error:
        raise ValueError(error.detail.removeprefix("observations[0]: ")) from error
