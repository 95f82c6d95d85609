"""Deletes the old files of a decision log."""

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from serving.record.files import list_files
from serving.record.lines import COMPLETE, OPEN


class _Old(NamedTuple):
    """A complete file; such tuples sort in the order of deletion."""

    written: float
    stream: str
    part: int
    path: Path
    size: int


def delete_old(folder: Path, *, days: float, total_bytes: int, file_bytes: int) -> list[str]:
    """Delete complete files that are too old, and the oldest ones while the total is too large.

    A part counts as no younger than later parts of its stream: even if the clock was set back, no
    part is deleted before an earlier one.

    Args:
        folder: of the log.
        days: the age at which a file is deleted.
        total_bytes: the most that all files may take.
        file_bytes: the size to assume for each file that is still being written.

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
    failures: dict[str, str] = {}  # by stream: its later parts are then kept
    for written, stream, _, path, size in sorted(files):
        if stream not in failures and (room < 0 or written < time.time() - 86_400 * days):
            try:
                path.unlink(missing_ok=True)
                room += size
            except OSError as error:
                failures[stream] = f"{path} cannot be deleted: {error.strerror}"
    return list(failures.values())
