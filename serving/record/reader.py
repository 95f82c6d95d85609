"""Reads a decision log, and proves that its lines are those that were written.

Hashes detect damage, not tampering: whoever can write the files can compute them as well. Only
signatures of the blocks detect tampering.

A service may be writing the log: meanwhile, files are completed, rotated and deleted for their age.
"""

from collections.abc import Callable, Iterator, Sized
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from serving.errors import first_line
from serving.record.files import chain, signed_text
from serving.record.lines import (
    COMPLETE,
    FILE_NAME,
    OPEN,
    Block,
    Decision,
    Feedback,
    Head,
    Line,
    Lost,
    completed,
)

IsSigned = Callable[[str, str], bool]  # whether a trusted key made a signature of a text

_DECODER = msgspec.json.Decoder(Line)


class LogError(Exception):
    """A log is not as it was written, or cannot be read; the message says where."""


class Located(NamedTuple):
    """A line and where it stands."""

    file: str
    position: int  # in the file, from 1
    line: Decision | Feedback | Lost


class Section(NamedTuple):
    """Lines between two blocks."""

    lines: list[Located]
    damage: str  # why they are not what was written; "" if they are


def read_sections(log: Path, is_signed: IsSigned | None = None) -> Iterator[Section]:
    """Read a folder of files, or one file; stream by stream, each in its order.

    A damaged section is the last one that may be used.

    Args:
        log: the folder or file.
        is_signed: checks the signature of each file's last block, if keys are given.

    Raises:
        LogError: a file is missing, cut off, not signed, or not of a decision log.
    """
    paths = sorted(_paths(log), key=_order)
    if not paths:
        raise LogError(f"{log} has no decision log files, *{COMPLETE}")
    for _, of_stream in groupby(paths, lambda path: _order(path)[0]):
        before: _Part | None = None
        for listed in of_stream:
            found = _read(listed)
            if found is not None:
                before = _Part(*found, before, is_signed)
                yield from before.sections()
            elif not log.is_dir():
                raise LogError(f"{log} is not there")
        if before is not None and before.end == "rotated" and log.is_dir():
            stream, part = _order(before.path)
            # The next part may have been created since the files were listed.
            if (stream, part + 1) not in map(_order, _paths(log)) and before.is_there():
                raise LogError(
                    f"{before.path.name} is not the last part, and the next one is missing"
                )


def read_lines(log: Path) -> Iterator[Decision | Feedback]:
    """The decisions and feedback of a log.

    Raises:
        LogError: the log is not as it was written.
    """
    for section in read_sections(log):
        if section.damage:
            raise LogError(section.damage)
        for located in section.lines:
            if not isinstance(located.line, Lost):
                yield located.line


def _paths(log: Path) -> list[Path]:
    if not log.exists():
        raise LogError(f"{log} is not there")
    if not log.is_dir():
        return [log]
    # Open files first, so that one completed meanwhile is seen under one of its names, or both.
    still_open = list(log.glob(f"*{OPEN}"))
    complete = set(log.glob(f"*{COMPLETE}"))
    return [
        *(path for path in still_open if completed(path) not in complete or path.exists()),
        *sorted(complete),
    ]


def _read(listed: Path) -> tuple[Path, bytes] | None:
    """A file's current name and content; None if it was deleted since it was listed."""
    for path in (listed, completed(listed)):
        try:
            return path, path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LogError(f"{path} cannot be read: {error.strerror}") from error
    return None


def _is_whole(line: Decision) -> bool:
    """Whether a decision has one entry per row in each list, and either a seed or uniforms."""
    of_rows: list[Sized] = [line.actions, line.log_probabilities, line.state_values]
    of_rows += [one for one in (line.observations, line.uniforms) if one is not None]
    if isinstance(line.deterministic, list):
        of_rows.append(line.deterministic)
    return len(set(map(len, of_rows))) == 1 and (line.seed is None) != (line.uniforms is None)


def _order(path: Path) -> tuple[str, int]:
    """The stream and the part that a file's name says."""
    found = FILE_NAME.fullmatch(path.name)
    if found is None:
        raise LogError(f"{path} is not named as a file of a decision log")
    return found["stream"], int(found["part"])


class _Part:
    """One file of a stream; its state at the end is where the next part must continue."""

    def __init__(
        self, path: Path, content: bytes, before: "_Part | None", is_signed: IsSigned | None
    ) -> None:
        self.path = path
        self.end: str | None = None
        self._content = content
        self._before = before
        self._is_signed = is_signed
        self._format = 1  # of the file
        self.number = 0  # of the next line
        self.sha256 = ""  # of the last block
        self._index = 0  # of the line that is read

    def sections(self) -> Iterator[Section]:
        """Read the file up to its last block."""
        lines = self._content.splitlines(keepends=True)
        self._content = b""
        is_open = self.path.name.endswith(OPEN)
        if is_open and lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # it is being written
        if is_open and not lines:
            return  # it is being created
        last: Block | None = None
        self._begin(lines)
        found: list[Located] = []
        start = 0  # index of the first line after the last block
        for self._index, text in enumerate(lines[1:], 2):
            line = self._decode(text)
            if isinstance(line, Block):
                written = chain(self.sha256, b"".join(lines[start : self._index - 1]))
                if written.sha256 != line.sha256:
                    what = f"lines {start + 1} to {self._index} are not what was written"
                    yield Section(found, f"{self.path.name}: {what}")
                    return
                yield Section(found, "")
                self.sha256, self.end = line.sha256, line.end
                found, start, last = [], self._index, line
                if line.end is not None and self._index != len(lines):
                    what = f"continues after its last line, line {self._index}"
                    raise LogError(f"{self.path.name} {what}")
            elif isinstance(line, Head):
                raise self._error("begins another worker's file: two files are mixed")
            else:
                if isinstance(line, Decision) and not _is_whole(line):
                    raise self._error("lacks a field that every decision has")
                self._count(line)
                found.append(Located(self.path.name, self._index, line))
        if not is_open and self.end is None:
            raise LogError(f"{self.path.name} is truncated: it has no end line")
        if last is not None:
            self._index = start
            self._require_signature(last)
        if self.end is None:
            # The hash that its last block will have: the next part may be chained to it already.
            self.sha256 = chain(self.sha256, b"").sha256

    def is_there(self) -> bool:
        """Whether the file still exists: it may be deleted for its age after it was read."""
        return self.path.exists() or completed(self.path).exists()

    def _begin(self, lines: list[bytes]) -> None:
        self._index = 1
        head = self._decode(lines[0]) if lines else None
        if not isinstance(head, Head):
            raise LogError(f"{self.path.name} does not begin as a file of a decision log")
        before, (stream, part) = self._before, _order(self.path)
        if (head.stream, head.part) != (stream, part):
            raise self._error(f"belongs to part {head.part} of {head.stream}, not to this file")
        if before is None and head.part == 1 and (head.previous or head.number != 1):
            raise self._error("is not how a first part begins")
        if before is not None and before.is_there():
            before_part = _order(before.path)[1]
            if part == before_part:
                raise LogError(f"{before.path.name} and {self.path.name} are the same part")
            if before.end == "stopped" or part != before_part + 1:
                raise LogError(f"a file between {before.path.name} and {self.path.name} is missing")
            if (head.previous, head.number) != (before.sha256, before.number):
                raise self._error(f"does not follow the last line of {before.path.name}")
        self._format = head.format
        self.sha256, self.number = head.previous, head.number

    def _decode(self, text: bytes) -> Line:
        try:
            line: Line = _DECODER.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._error(f"is not a line of a decision log: {first_line(error)}") from error
        return line

    def _count(self, line: Decision | Feedback | Lost) -> None:
        first, count = (line.first, line.lines) if isinstance(line, Lost) else (line.number, 1)
        if first != self.number:
            raise self._error(f"has the number {first} where {self.number} was written")
        self.number += count

    def _require_signature(self, block: Block) -> None:
        text = block.sha256 if self._format == 1 else signed_text(block)
        if self._is_signed is not None and not (
            block.signature and self._is_signed(text, block.signature)
        ):
            raise self._error("ends the last block, which no trusted key has signed")

    def _error(self, what: str) -> LogError:
        return LogError(f"{self.path.name}, line {self._index}: {what}")
