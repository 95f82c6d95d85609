"""The files of a decision log: each worker process writes a stream of its own, in parts.

A file that is being written is locked by its worker (flock). One that nobody has locked any more
was left by a worker that was killed: the next worker completes it.
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from serving.record.encoding import Clock
from serving.record.lines import COMPLETE, OPEN, Block, Head

logger = logging.getLogger(__name__)

FILE_SECONDS = 3600.0
MAX_FILE_BYTES = 64 * 1024 * 1024
_MAKING_SECONDS = 60.0
_BLOCK_START = b'{"type":"block"'

Sign = Callable[[str], str]  # the signature of a hash


class Stream:
    """The files that one worker process writes, one after the other.

    Every method that writes raises `OSError` where that fails, and has then written nothing: the
    same block can be written later.

    Attributes:
        part: number of the file that is written, from 1.
    """

    def __init__(
        self, folder: Path, *, file_bytes: int, sample: float, rows: bool, sign: Sign | None
    ) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._sample, self._rows, self._sign = sample, rows, sign
        self._name = os.urandom(4).hex()
        self.part = 0
        self._number = 1  # of the next line
        self._sha256 = ""
        self._file: int | None = None  # descriptor
        self._path = Path()
        self._bytes = 0
        self._has_lines = False  # in this file
        self._began = 0.0

    def write(self, lines: list[bytes], number: int) -> None:
        """Write a block of lines; `number` is that of the next line after it."""
        if self._file is None:
            self._open()
        self._write(b"".join(lines), "rotated" if self._bytes >= self._file_bytes else None)
        self._number = number
        self._has_lines = True
        self._open_next()

    def rotate(self) -> None:
        """Begin the next file if this one is old."""
        is_old = time.monotonic() - self._began >= FILE_SECONDS
        if self._file is not None and self._has_lines and is_old:
            self._write(b"", "rotated")
            self._open_next()

    def close(self) -> None:
        """Complete the last file."""
        if self.part:
            if self._file is None:
                self._open()
            self._write(b"", "stopped")

    def _open_next(self) -> None:
        """Begin the part that must follow a rotated one, now or at the next write."""
        if self._file is None:
            with suppress(OSError):
                self._open()

    def _open(self) -> None:
        part = self.part + 1
        head = Head(
            stream=self._name,
            part=part,
            number=self._number,
            previous=self._sha256,
            time=Clock().now(),
            sample=self._sample,
            rows=self._rows,
        )
        began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._folder / f"{began}-{self._name}-{part:06d}{OPEN}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._append(descriptor, 0, msgspec.json.encode(head) + b"\n", None)
        except OSError:
            path.unlink()
            os.close(descriptor)
            raise
        self._file, self._path, self.part = descriptor, path, part
        self._has_lines, self._began = False, time.monotonic()

    def _write(self, lines: bytes, end: Literal["rotated", "stopped"] | None) -> None:
        assert self._file is not None
        self._append(self._file, self._bytes, lines, end)
        if end is not None:
            with suppress(OSError):  # `recover` does it later
                _complete(self._file, self._path)
            os.close(self._file)
            self._file = None

    def _append(
        self, descriptor: int, offset: int, lines: bytes, end: Literal["rotated", "stopped"] | None
    ) -> None:
        block = chain(self._sha256, lines, end, self._sign)
        data = lines + msgspec.json.encode(block) + b"\n"
        _write_at(descriptor, offset, data)
        self._sha256, self._bytes = block.sha256, offset + len(data)


def chain(
    previous: str,
    lines: bytes,
    end: Literal["rotated", "stopped", "recovered"] | None = None,
    sign: Sign | None = None,
) -> Block:
    """The block that ends lines; `previous` is the hash of the block before, or ""."""
    digest = hashlib.sha256(previous.encode() + lines).hexdigest()
    signature = sign(digest) if sign is not None and end is not None else None
    return Block(sha256=digest, end=end, signature=signature)


def recover(folder: Path, sign: Sign | None) -> None:
    """Complete the files of workers that were killed, each up to its last whole line.

    Raises:
        OSError: the folder cannot be read, or a file in it cannot be written.
    """
    for path in sorted(folder.glob(f"*{OPEN}")):
        with suppress(FileNotFoundError, BlockingIOError):  # completed since, or still written
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                    _recover(descriptor, path, sign)
            finally:
                os.close(descriptor)


def _recover(descriptor: int, path: Path, sign: Sign | None) -> None:
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    start = content.rfind(_BLOCK_START)
    behind = content.find(b"\n", start) + 1
    if start == -1:  # another worker makes it just now, or was killed before its head was written
        if time.time() - os.fstat(descriptor).st_mtime > _MAKING_SECONDS:
            path.unlink()
        return
    last = msgspec.json.decode(content[start:behind], type=Block)
    if last.end is None:
        block = chain(last.sha256, content[behind:], "recovered", sign)
        _write_at(descriptor, len(content), msgspec.json.encode(block) + b"\n")
    _complete(descriptor, path)
    logger.warning("%s was left by a worker that was killed, and is complete now", path.name)


def delete_old(folder: Path, *, days: float, total_bytes: int, file_bytes: int) -> None:
    """Delete complete files that are too old, and the oldest while all take too much.

    Args:
        folder: of the log.
        days: after which a file is deleted.
        total_bytes: that all files may take.
        file_bytes: to count for each file that is still written.

    Raises:
        OSError: the folder cannot be read, or a file in it cannot be deleted.
    """
    files = sorted(_complete_files(folder))
    room = total_bytes - file_bytes * len(list(folder.glob(f"*{OPEN}")))
    room -= sum(size for _, _, size in files)
    for written, path, size in files:
        if room < 0 or written < time.time() - 86_400 * days:
            path.unlink(missing_ok=True)
            room += size


def _complete_files(folder: Path) -> Iterator[tuple[float, Path, int]]:
    """When each was written, where it is, and its bytes."""
    for path in folder.glob(f"*{COMPLETE}"):
        with suppress(FileNotFoundError):  # another worker has deleted it
            status = path.stat()
            yield status.st_mtime, path, status.st_size


def _write_at(descriptor: int, offset: int, data: bytes) -> None:
    """Write all of the data at the end of a file, or nothing."""
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:] if written else data, offset + written)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
    if os.fstat(descriptor).st_size > offset + len(data):
        os.ftruncate(descriptor, offset + len(data))  # what a killed worker wrote in part


def _complete(descriptor: int, path: Path) -> None:
    os.fsync(descriptor)
    path.rename(path.with_name(path.name.removesuffix(OPEN) + COMPLETE))
