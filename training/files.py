"""Atomic and durable writes: after a crash of the machine a file is complete or absent."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CARD = "assets.extra/policy.json"  # the policy card of a version


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a file atomically: a reader sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(content)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A symlink to a folder, for TensorFlow, which takes `[`, `*` and `?` in paths for patterns."""
    with tempfile.TemporaryDirectory() as parent:
        link = Path(parent) / "folder"
        link.symlink_to(folder.absolute())
        yield link


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file or a folder for reading; yield its descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; False if its file system has no such locks.

    Raises:
        BlockingIOError: another process has locked it, and `wait` is false.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return False
    return True


def make_readable(target: Path) -> None:
    """Let every user read a file, or a folder and all in it, whatever the umask was."""
    for path in [*target.rglob("*"), target]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def sync_tree(folder: Path) -> None:
    """Sync a folder and all in it to disk (fsync)."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk (fsync)."""
    with opened(path) as descriptor:
        os.fsync(descriptor)
