"""The files of a decision log: each worker process writes a stream of its own, in parts.

A worker locks the file that it is writing (flock). An incomplete file without a lock was left by a
worker that was killed: the next worker completes it.
"""

import fcntl
import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from serving.record.encoding import Clock
from serving.record.lines import FILE_NAME, OPEN, Block, Head, completed, encode_line

logger = logging.getLogger(__name__)

FILE_SECONDS = 3600.0
MAX_FILE_BYTES = 64 * 1024 * 1024
_MAKING_SECONDS = 60.0
_BLOCK_START = b'{"type":"block"'


class Sign(Protocol):
    """Signs texts with the private key of the service, in base64."""

    def __call__(self, text: str) -> str:
        """The signature of a text."""
        ...

    def has_made(self, text: str, signature: str) -> bool:
        """Whether this key made a signature of a text."""
        ...


class Stream:
    """The files that one worker process writes, one after the other.

    Every method that writes raises `OSError` if that fails, and then has changed nothing: the same
    block can be written later.

    Attributes:
        part: number of the file that is being written, from 1; 0 before the first one.
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
        self._previous = ""  # hash for the head of a first file, or of one after a removed file
        self._file: _File | None = None

    def write(self, lines: list[bytes], number: int) -> None:
        """Write a block of lines; `number` is that of the next line after it."""
        if self._file is None:
            self._file = self._begin(self._previous)
            self.part += 1
        self._file.append(b"".join(lines))
        self._file.lines += len(lines)
        self._number = number

    def rotate(self) -> None:
        """Begin the next file if this one is large or old."""
        file = self._file
        if file is None or not file.lines:
            return
        if file.bytes < self._file_bytes and time.monotonic() - file.began < FILE_SECONDS:
            return
        # Create the next file first: on a full disk, no file may end by announcing a missing one.
        following = self._begin(chain(file.sha256, b"").sha256)
        try:
            file.complete("rotated")
        except OSError:
            following.remove()
            raise
        self._file = following
        self.part += 1

    def leave_removed(self) -> int:
        """Have the next block written to a new file, if the current one was removed.

        Returns:
            How many lines are known to be lost with the removed file.
        """
        file = self._file
        if file is None or not file.is_removed():
            return 0
        logger.error("%s was removed, and %d lines with it", file.path, file.lines)
        file.close()
        self._file, self._previous = None, file.sha256
        return file.lines

    def close(self) -> None:
        """Complete the last file."""
        if self._file is not None:
            self._file.complete("stopped")
            self._file = None

    def _begin(self, previous: str) -> "_File":
        """Create the next file."""
        head = Head(
            format=2,
            stream=self._name,
            part=self.part + 1,
            number=self._number,
            previous=previous,
            time=Clock().now(),
            sample=self._sample,
            rows=self._rows,
        )
        began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._folder / f"{began}-{self._name}-{head.part:06d}{OPEN}"
        return _File(path, head, self._sign)


class _File:
    """A file that is being written.

    Attributes:
        path: its name until it is complete.
        sha256: hash of its last block.
        bytes: its size.
        lines: how many it has, not counting its head and its block lines.
        began: when it was created, by the monotonic clock.
    """

    def __init__(self, path: Path, head: Head, sign: Sign | None) -> None:
        self.path = path
        self._sign = sign
        self.sha256 = head.previous
        self.bytes = self.lines = 0
        self.began = time.monotonic()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self.append(encode_line(head))
        except OSError:
            self.remove()
            raise

    def append(self, lines: bytes, end: Literal["rotated", "stopped"] | None = None) -> None:
        """Write a block."""
        block = chain(self.sha256, lines, end, self._sign)
        data = lines + encode_line(block)
        _write_at(self._descriptor, self.bytes, data)
        self.sha256 = block.sha256
        self.bytes += len(data)

    def complete(self, end: Literal["rotated", "stopped"]) -> None:
        """Write the last block, which says why the file ends."""
        self.append(b"", end)
        with suppress(OSError):  # `recover` does it later
            _complete(self._descriptor, self.path)
        self.close()

    def is_removed(self) -> bool:
        """Whether nobody can open it any more."""
        return os.fstat(self._descriptor).st_nlink == 0

    def remove(self) -> None:
        """Delete and close it."""
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close it without completing it."""
        os.close(self._descriptor)


def chain(
    previous: str,
    lines: bytes,
    end: Literal["rotated", "stopped", "recovered"] | None = None,
    sign: Sign | None = None,
) -> Block:
    """The block that ends lines; `previous` is the hash of the block before, or ""."""
    digest = hashlib.sha256(previous.encode() + lines).hexdigest()
    block = Block(sha256=digest, end=end)
    if sign is None:
        return block
    return Block(sha256=digest, end=end, signature=sign(signed_text(block)))


def signed_text(block: Block) -> str:
    """The text that a block's signature covers: its line, without the signature."""
    return msgspec.json.encode(Block(sha256=block.sha256, end=block.end)).decode()


def list_files(folder: Path, ending: str) -> list[tuple[str, int, Path]]:
    """Stream, part and path of each of the log's files, sorted; other files are ignored."""
    named = ((FILE_NAME.fullmatch(path.name), path) for path in folder.glob(f"*{ending}"))
    return sorted((name["stream"], int(name["part"]), path) for name, path in named if name)


def recover(folder: Path, sign: Sign | None) -> list[str]:
    """Complete the files of workers that were killed, each up to its last whole line.

    The end of a file is signed only if the last line is a block that the same key has signed:
    anything else may come from anyone who can write in the folder.

    Returns:
        Which files cannot be completed, and why.
    """
    failures = []
    for _, _, path in list_files(folder, OPEN):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                    _recover(descriptor, path, sign)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, BlockingIOError):
            pass  # completed since, or still being written
        except OSError as error:
            failures.append(f"{path} cannot be completed: {error.strerror}")
    return failures


def _recover(descriptor: int, path: Path, sign: Sign | None) -> None:
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    start = content.rfind(_BLOCK_START)
    behind = content.find(b"\n", start) + 1
    if start == -1:  # another worker is creating it, or was killed before it wrote the head
        if time.time() - os.fstat(descriptor).st_mtime > _MAKING_SECONDS:
            path.unlink()
        return
    try:
        last = msgspec.json.decode(content[start:behind], type=Block)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        last = Block(sha256="")  # the reader reports the damage
    what = "is complete now"
    if last.end is None:
        if sign is not None and not (
            behind == len(content)
            and last.signature is not None
            and sign.has_made(signed_text(last), last.signature)
        ):
            what += ", without a signature: its last lines have none by this key"
            sign = None
        block = chain(last.sha256, content[behind:], "recovered", sign)
        _write_at(descriptor, len(content), encode_line(block))
    _complete(descriptor, path)
    logger.warning("%s was left by a killed worker, and %s", path.name, what)


def _write_at(descriptor: int, offset: int, data: bytes) -> None:
    """Write all of the data at the end of a file, or none of it."""
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:] if written else data, offset + written)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
    if os.fstat(descriptor).st_size > offset + len(data):
        os.ftruncate(descriptor, offset + len(data))  # a killed worker's partial line


def _complete(descriptor: int, path: Path) -> None:
    os.fsync(descriptor)
    path.rename(completed(path))
