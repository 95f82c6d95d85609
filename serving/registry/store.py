"""Copies of versions in a private folder of the service: what is checked is what is loaded.

All workers share the folder. A copy is named by the digest of its content: workers that copy the
same version at once end up with one copy, and a version replaced under its number gets a new one.
The verdict is stored beside the copy, so that each version is examined once for all workers.
"""

import atexit
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from serving.policy.artefact import ArtefactError
from serving.registry.selection import Selection

SHOWN_DIGITS = 12  # of a digest, in answers and logs
MAX_FILES = 1_000
MAX_BYTES = 1024**3
MAX_FOLDER_BYTES = 2 * MAX_BYTES  # of all copies in one of the folders
# Longer than a worker takes from copying a version to recording that it needs the copy.
_KEEP_SECONDS = 300.0
_LISTING, _VERDICT = ".listing", ".verdict"  # suffixes of the file names
_PIECE_BYTES = 1024 * 1024


class Listing(msgspec.Struct):
    """What a model's folder held when it was last read."""

    selection: Selection = Selection()
    digests: dict[int, str] = {}  # of versions that were copied


class Found(NamedTuple):
    """The files of a version, as they are listed."""

    paths: list[str]  # relative
    fingerprint: tuple[tuple[object, ...], ...]  # changes whenever a file may have changed


def find_files(model_dir: Path) -> Found:
    """List the files of a version without opening any.

    Raises:
        ArtefactError: it contains anything but files and folders, or is too large.
        OSError: a folder cannot be read.
    """
    if model_dir.is_symlink():
        raise ArtefactError("it is a symbolic link")
    if model_dir.parent.is_symlink():
        raise ArtefactError("its model's folder is a symbolic link")
    found: dict[str, os.stat_result] = {}
    folders, total = [""], 0
    while folders:
        below = folders.pop()
        with os.scandir(model_dir / below) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if not path.isprintable():  # includes names that are not UTF-8
                    raise ArtefactError(f"the name {path!r} has characters that cannot be shown")
                if entry.is_symlink():
                    raise ArtefactError(f"{path!r} is a symbolic link")
                if entry.is_dir():
                    folders.append(path)
                elif entry.is_file():
                    found[path] = entry.stat()
                    total += found[path].st_size
                else:
                    raise ArtefactError(f"{path!r} is neither a file nor a folder")
                require_size(len(found) + len(folders), total)
    return Found(
        sorted(found),
        tuple(
            (path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            for path, status in sorted(found.items())
        ),
    )


def require_size(files: int, size: int) -> None:
    """Raise `ArtefactError` if a version has too many files or too many bytes."""
    if files > MAX_FILES or size > MAX_BYTES:
        raise ArtefactError(
            f"it has more than {MAX_FILES} files or {MAX_BYTES} bytes, the most allowed"
        )


class Store:
    """The private folders: each takes what does not fit into the ones before it.

    If none is given, there is a temporary one, which is removed when the process ends.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders or (Path(tempfile.mkdtemp(prefix="serving-")),)
        if not folders:
            atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folders."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Where the copy with a digest is, or would be."""
        paths = [folder / digest for folder in self._folders]
        return next((path for path in paths if path.is_dir()), paths[0])

    def copy(self, model_dir: Path, paths: list[str]) -> str:
        """Copy the files of a version, each read once; an equal copy that exists is kept instead.

        Returns:
            Its digest: SHA-256 of the paths and contents, in 64 hex digits.

        Raises:
            ArtefactError: it is too large.
            OSError: a file cannot be read, or there is no room for its copy now.
        """
        *others, last = self._folders
        for folder in others:
            try:
                return self._copy(folder, model_dir, paths)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return self._copy(last, model_dir, paths)

    def _copy(self, folder: Path, model_dir: Path, paths: list[str]) -> str:
        writing = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        digest, total = hashlib.sha256(), 0
        room = MAX_FOLDER_BYTES - _size(folder)
        try:
            for path in paths:
                target = writing / path
                # Never create `writing` again: if it is gone, so are the files written before.
                for parent in reversed(Path(path).parents[:-1]):
                    (writing / parent).mkdir(exist_ok=True)
                content = hashlib.sha256()
                # If it has become a link or a pipe since, neither follow it nor wait for it.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                with open(os.open(model_dir / path, flags), "rb") as file, target.open("wb") as out:
                    while piece := file.read(_PIECE_BYTES):
                        total += len(piece)
                        if total > MAX_BYTES:
                            raise ArtefactError(f"it has more than {MAX_BYTES} bytes")
                        if total > room:
                            raise OSError(errno.ENOSPC, "no room for another copy of a version")
                        content.update(piece)
                        out.write(piece)
                        os.utime(writing)  # otherwise it looks old while a large file is written
                digest.update(os.fsencode(path) + b"\0" + content.digest())
            found = digest.hexdigest()
            with contextlib.suppress(OSError):  # another worker was first
                writing.rename(folder / found)
            os.utime(folder / found)
            return found
        finally:
            shutil.rmtree(writing, ignore_errors=True)

    def verdict(self, digest: str) -> str | None:
        """Why a version is refused; "" if it is good, None if it was not examined yet."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._verdict_path(digest).read_bytes(), type=str)
        return None

    def _verdict_path(self, digest: str) -> Path:
        """Beside the copy; the file stays when the copy of a refused version is removed."""
        paths = [folder / f"{digest}{_VERDICT}" for folder in self._folders]
        there = next((path for path in paths if path.exists()), None)
        return there or self.path(digest).with_suffix(_VERDICT)

    def judge(self, digest: str, examine: Callable[[Path], object]) -> None:
        """Examine a copy, unless that was done; waits for another process that is examining it.

        The copy of a refused version is removed.

        Args:
            digest: of the copy.
            examine: raises an `ArtefactError` if the version in a folder is to be refused.

        Raises:
            OSError: there is no room for the verdict.
        """
        model_dir = self.path(digest)
        with self._verdict_path(digest).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if self.verdict(digest) is not None:
                return
            reason = ""
            try:
                examine(model_dir)
            except ArtefactError as error:
                reason = str(error)
                shutil.rmtree(model_dir, ignore_errors=True)
            file.truncate(0)  # a killed process can leave a partial verdict
            file.write(msgspec.json.encode(reason))

    def remember(self, model: str, listing: Listing) -> None:
        """Save what a model's folder holds, for workers that start while it cannot be read."""
        content, name = msgspec.json.encode(listing), _listing_name(model)
        for folder in self._folders:
            path = folder / name
            try:
                if not path.exists() or path.read_bytes() != content:
                    descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=folder)
                    try:
                        with open(descriptor, "wb") as file:
                            file.write(content)
                        os.replace(temporary, path)
                    except BaseException:
                        os.unlink(temporary)
                        raise
                return
            except OSError:
                path.unlink(missing_ok=True)  # outdated; the next folder may have room

    def recall(self, model: str) -> Listing:
        """What a model's folder held when a worker last read it; empty if none ever has."""
        for folder in self._folders:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                return msgspec.json.decode(
                    (folder / _listing_name(model)).read_bytes(), type=Listing
                )
        return Listing()

    def clean_up(self, needed: set[str]) -> None:
        """Remove copies and verdicts that are not `needed`, except recent ones."""
        for path in (path for folder in self._folders for path in folder.iterdir()):
            is_needed = path.stem in needed and not (path.is_dir() and self.verdict(path.name))
            with contextlib.suppress(OSError):
                is_old = time.time() - path.stat().st_mtime > _KEEP_SECONDS
                if is_needed or not is_old or path.suffix == _LISTING:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _size(folder: Path) -> int:
    """Total size of all files below a folder, in bytes; others may remove some meanwhile."""
    total = 0
    for below, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(below, name)).st_size
    return total


def _listing_name(model: str) -> str:
    return hashlib.sha256(os.fsencode(model)).hexdigest() + _LISTING
