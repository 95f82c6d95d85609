"""Rows from CSV and JSON Lines.

Each block is first read as a whole by one call of msgspec, which accepts what nearly all files
contain. If that refuses it, or if rows and lines might not match, the block is read again line by
line: that accepts all other valid forms, and says which line is wrong.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import astuple

from serving.policy.observations import Rows
from serving.schemas import Row
from serving.score.source import Block, RowError, Source, require_form, require_names

_BLOCK_BYTES = 512 * 1024
_MAX_LINE_BYTES = 16 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some programs start UTF-8 with it
_COMMA, _LINE_END = b",\n"

_NUMBERS = msgspec.json.Decoder(list[float])
_ROW = msgspec.json.Decoder(Row)

Read = Callable[[bytes], Rows | None]  # all rows of a block, or None to read it line by line
ReadLine = Callable[[str], Row]  # raises `ValueError` that says what is wrong


def read_csv(path: Path, names: list[str]) -> Source:
    """Rows of comma-separated numbers, in the order that a first line of names gives.

    If the first line has only numbers, it is a row, and the order is that of `names`.
    """
    return Source(path, "line", path.stat().st_size, _csv_blocks(path, names))


def read_json_lines(path: Path, names: list[str]) -> Source:
    """Rows as in `POST /act`, one per line: a list of numbers, or an object of named numbers."""
    read = _json_reader(names)
    blocks = (
        block
        for first, text in _lines(path)
        for block in _read(first, text, len(text), read, partial(_json_row, names))
    )
    return Source(path, "line", path.stat().st_size, blocks)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Blocks of whole lines, each with the number of its first line; all lines end with `\n`."""
    number = 1
    with path.open("rb") as file:
        while text := file.read(_BLOCK_BYTES):
            if not text.endswith(b"\n"):
                text += file.readline(_MAX_LINE_BYTES)
            if not text.endswith(b"\n"):
                if file.read(1):
                    where = number + text.count(b"\n")
                    raise RowError(where, f"longer than {_MAX_LINE_BYTES} bytes")
                text += b"\n"
            yield number, text
            number += text.count(b"\n")


def _read(first: int, text: bytes, size: int, read: Read, read_line: ReadLine) -> Iterator[Block]:
    """The rows of a block of lines, up to the first line that cannot be read."""
    rows = read(text)
    if rows is not None:
        yield Block(rows, first, size)
        return
    one_by_one: list[Row] = []
    wrong: RowError | None = None
    for number, line in enumerate(text[:-1].split(b"\n"), first):
        try:
            one_by_one.append(read_line(line.decode()))
        except ValueError as error:
            wrong = RowError(number, str(error))
            break
    if one_by_one:
        yield Block(one_by_one, first, size)
    if wrong:
        raise wrong


def _csv_blocks(path: Path, names: list[str]) -> Iterator[Block]:
    order: list[int] | None = None  # columns of the file in the order of the names

    def read(text: bytes) -> Rows | None:
        numbers = _numbers(text, len(names))
        return numbers if numbers is None or order is None else numbers[:, order]

    def read_line(line: str) -> Row:
        row = [_number(field) for field in _fields(line)]
        require_form(row, names)
        return row if order is None else [row[column] for column in order]

    for first, text in _lines(path):
        size = len(text)
        if first == 1:
            text = text.removeprefix(_BYTE_ORDER_MARK)
            head, _, rest = text.partition(b"\n")
            order = _order(head, names)
            if order is not None:
                first, text = 2, rest
        if text:
            yield from _read(first, text, size, read, read_line)


def _order(head: bytes, names: list[str]) -> list[int] | None:
    """Each name's column, according to the first line; None if that has numbers, not names."""
    try:
        fields = _fields(head.decode())
        try:
            list(map(float, fields))
        except ValueError:
            pass
        else:
            return None
        require_names(fields, names)
    except ValueError as error:
        raise RowError(1, str(error)) from error
    return [fields.index(name) for name in names]


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line.removesuffix("\r")], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"not CSV: {error}") from error


def _number(field: str) -> float:
    try:
        if "_" not in field:  # valid in Python's numbers only
            return float(field)
    except ValueError:
        pass
    raise ValueError(f"{field[:40]!r} is not a number")


def _numbers(text: bytes, columns: int) -> npt.NDArray[np.float64] | None:
    """Lines of `columns` comma-separated numbers, as `[B, O]`; None if they are anything else.

    With commas in place of the line ends, the lines are the inside of one JSON list. Every number
    in JSON is one in CSV too.
    """
    characters = np.frombuffer(text, np.uint8)
    separators = characters[(characters == _COMMA) | (characters == _LINE_END)]
    if len(separators) % columns:
        return None
    separators = separators.reshape(-1, columns)
    if (separators[:, :-1] == _LINE_END).any() or (separators[:, -1] == _COMMA).any():
        return None
    try:
        numbers = _NUMBERS.decode(b"[%b]" % text[:-1].replace(b"\n", b","))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(numbers) != separators.size:  # an empty line, if rows have one number
        return None
    return np.fromiter(numbers, np.float64, len(numbers)).reshape(separators.shape)


def _json_reader(names: list[str]) -> Read:
    fields = [f"field_{index}" for index in range(len(names))]
    try:
        named = msgspec.defstruct(
            "Named",
            [(field, float) for field in fields],
            rename=dict(zip(fields, names, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:  # a name has a character that JSON escapes
        return lambda _: None
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(named)

    def read(text: bytes) -> Rows | None:
        if text.endswith(b"\r\n"):
            text = text.replace(b"\r\n", b"\n")
        # A row must not continue on the next line, and two must not share one.
        if text.startswith(b"[") and text.endswith(b"]\n"):
            inside = text[1:-2].replace(b"]\n[", b"\n")
            lists = _numbers(b"%b\n" % inside, len(names))
            ends = (len(text) - 3 - len(inside)) // 2
            return lists if lists is not None and len(lists) == ends + 1 else None
        lines = text.count(b"\n")
        # Count quotes to find duplicate keys: the decoder keeps the last value of a key.
        if text.count(b"}\n{") != lines - 1 or text.count(b'"') != 2 * len(names) * lines:
            return None
        try:
            rows: Sequence[Any] = decoder.decode_lines(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        numbers = chain.from_iterable(map(astuple, rows))
        return np.fromiter(numbers, np.float64, lines * len(names)).reshape(lines, -1)

    return read


def _json_row(names: list[str], line: str) -> Row:
    try:
        row: Row = _ROW.decode(line)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if isinstance(row, dict) and line.count('"') != 2 * len(row):
        pairs: list[tuple[str, float]] = json.loads(line, object_pairs_hook=list)
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ValueError(f"the key {key!r} occurs {count} times")
    require_form(row, names)
    return row
