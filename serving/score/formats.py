"""The formats of observations and results, by the suffix of a file's name."""

import importlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from serving.score.arrays import read_npy, read_parquet
from serving.score.results import (
    NpyResults,
    ParquetResults,
    Results,
    write_csv,
    write_json_lines,
)
from serving.score.source import ScoreError, Source
from serving.score.text import read_csv, read_json_lines

READERS: dict[str, Callable[[Path, list[str]], Source]] = {
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".npy": read_npy,
    ".parquet": read_parquet,
}
WRITERS: dict[str, Callable[[BinaryIO, int], Results]] = {
    ".csv": write_csv,
    ".jsonl": write_json_lines,
    ".npy": NpyResults,
    ".parquet": ParquetResults,
}


def require_formats(source: Path, target: Path) -> None:
    """Refuse wrong paths before anything else is done.

    Raises:
        ScoreError: a format is unknown or needs an extra that is missing, both paths are the same
            file, or the target is not a regular file.
    """
    for path in (source, target):
        if path.suffix not in READERS:
            known = ", ".join(READERS)
            raise ScoreError(f"{path}: the format must be one of {known}, not {path.suffix!r}")
    if ".parquet" in (source.suffix, target.suffix):
        try:
            importlib.import_module("pyarrow")
        except ModuleNotFoundError as error:
            raise ScoreError(f"Parquet needs actor-critic[parquet]: {error}") from error
    if target.exists():
        if target.samefile(source):
            raise ScoreError(f"{target}: the results would overwrite the observations")
        if not target.is_file():
            raise ScoreError(f"{target}: it is not a regular file")


def open_source(path: Path, names: list[str]) -> Source:
    """The observations in a file, of features with these names.

    Raises:
        ScoreError: it is not of its format, or does not have these features.
        OSError: it cannot be read.
    """
    return READERS[path.suffix](path, names)


@contextmanager
def open_target(path: Path) -> Iterator[Callable[[int], Results]]:
    """A function that starts the results in a file, given the policy's number of actions.

    The file replaces `path`, or the file that this links to, as a whole or not at all: until the
    `with` statement ends, it has a temporary name beside it; then it is synced to disk (fsync) and
    renamed. Any exception removes it. The new file gets the mode of the one that it replaces.

    Raises:
        OSError: it cannot be written.
    """
    write, path = WRITERS[path.suffix], Path(os.path.realpath(path))
    temporary = path.with_name(f".writing-{os.urandom(4).hex()}-{path.name}")
    with temporary.open("xb") as file:
        try:
            if path.exists():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            yield partial(write, file)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
