"""Deletes the old files of a decision log."""

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from serving.record.files import list_files
from serving.record.lines import COMPLETE, OPEN


class _Old(NamedTuple):
    """A complete file, in the order in which they are deleted."""

    written: float
    stream: str
    part: int
    path: Path
    size: int


def delete_old(folder: Path, *, days: float, total_bytes: int, file_bytes: int) -> list[str]:
    """Delete complete files that are too old, and the oldest while all take too much.

    A part is as old as the oldest of its stream from it on: where the clock was set back, none
    goes before an earlier one.

    Args:
        folder: of the log.
        days: after which a file is deleted.
        total_bytes: that all files may take.
        file_bytes: to count for each file that is still written.

    Returns:
        Which files cannot be deleted, and why.
    """
    files: list[_Old] = []
    for stream, part, path in reversed(list_files(folder, COMPLETE)):
        with suppress(FileNotFoundError):  # another worker has deleted it
            status = path.stat()
            later = files[-1].written if files and files[-1].stream == stream else math.inf
            files.append(_Old(min(status.st_mtime, later), stream, part, path, status.st_size))
    room = total_bytes - file_bytes * len(list_files(folder, OPEN))
    room -= sum(file.size for file in files)
    failures: dict[str, str] = {}  # of streams, of which later parts stay then
    for written, stream, _, path, size in sorted(files):
        if stream not in failures and (room < 0 or written < time.time() - 86_400 * days):
            try:
                path.unlink(missing_ok=True)
                room += size
            except OSError as error:
                failures[stream] = f"{path} cannot be deleted: {error.strerror}"
    return list(failures.values())
