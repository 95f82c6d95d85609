"""Counts and times of each loaded version's requests, over all worker processes.

Prometheus's counters are kept for ever; these numbers are removed with their version.
"""

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)


class Inferences(NamedTuple):
    """Requests that were decided since their version was loaded.

    A batch is decoded, decided and encoded together, and each of its requests waits for all of
    them: the batch's times are added once per request.
    """

    requests: int = 0
    rows: int = 0
    executions: int = 0
    decode_nanoseconds: int = 0
    decide_nanoseconds: int = 0
    encode_nanoseconds: int = 0
    failures: int = 0
    failure_nanoseconds: int = 0
    last_milliseconds: int = 0  # Unix time at which the last request ended


_SIZE = len(Inferences._fields)


class SharedArrays:
    """Arrays of numbers by name, one per process, in a folder that the processes share.

    Each process writes its own files, named by its `slot`, and continues those that its predecessor
    in that slot left. Without a folder, the arrays are not shared.
    """

    def __init__(
        self,
        folder: Path | None = None,
        slot: int = 0,
        dtype: type[np.int64 | np.float64] = np.int64,
    ) -> None:
        self._dtype = dtype
        self._folder = folder
        self._slot = slot
        self._lock = threading.Lock()  # one thread opens a file at a time
        self._own: dict[str, npt.NDArray[Any]] = {}

    def own(self, name: str, size: int) -> npt.NDArray[Any]:
        """This process's array of that name and size, to be written in place; zeros at first."""
        with self._lock:
            if name not in self._own:
                self._own[name] = self._open(name, size)
            return self._own[name]

    def all(self, name: str, size: int) -> list[npt.NDArray[Any]]:
        """The arrays of all processes as they are now."""
        if self._folder is None:
            return [self._own[name]] if name in self._own else []
        parts = []
        for path in (self._folder / name).glob("*"):
            with suppress(FileNotFoundError):  # its version was unloaded just now
                parts.append(np.fromfile(path, self._dtype))
        return [part for part in parts if part.size == size]  # one may be only partly written

    def forget(self, name: str) -> None:
        """Remove this process's array."""
        self._own.pop(name, None)
        if self._folder is not None:
            self._path(self._folder, name).unlink(missing_ok=True)

    def _path(self, folder: Path, name: str) -> Path:
        return folder / name / str(self._slot)

    def _open(self, name: str, size: int) -> npt.NDArray[Any]:
        zeros = np.zeros(size, self._dtype)
        if self._folder is None:
            return zeros
        path = self._path(self._folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                # Allocate the space: without, a write to the map on a full disk raises SIGBUS.
                path.write_bytes(zeros.tobytes())
            return np.asarray(np.memmap(path, self._dtype, "r+", shape=(size,)))
        except (OSError, ValueError) as error:
            logger.error("from now on the statistics are of this worker alone: %s", error)
            with suppress(OSError):
                path.unlink()  # it is partly written if there was no room for all of it
            self._folder = None
            return zeros


class Statistics:
    """Inferences by model, version and digest: a replaced version starts from zero.

    Attributes:
        arrays: hold the inferences of all processes of a service.
    """

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        """Share a folder with other processes; see `SharedArrays`."""
        self.arrays = SharedArrays(folder, slot)
        self._own: dict[tuple[str, int, str], npt.NDArray[np.int64]] = {}

    def add(self, model: str, version: int, digest: str, inferences: Inferences) -> None:
        """Add what was decided."""
        key = model, version, digest
        own = self._own.get(key)
        if own is None:
            own = self._own[key] = self.arrays.own(_name(*key), _SIZE)
        own[:-1] += inferences[:-1]
        own[-1] = inferences.last_milliseconds

    def total(self, model: str, version: int, digest: str) -> Inferences:
        """The sum of all processes."""
        parts = self.arrays.all(_name(model, version, digest), _SIZE)
        table = np.stack([np.zeros(_SIZE, np.int64), *parts])
        sums = Inferences._make(table.sum(0).tolist())
        return sums._replace(last_milliseconds=table[:, -1].max().item())

    def keep(self, loaded: Iterable[tuple[str, int, str]]) -> None:
        """Forget all versions of models but these."""
        for key in self._own.keys() - set(loaded):
            del self._own[key]
            self.arrays.forget(_name(*key))


def _name(model: str, version: int, digest: str) -> str:
    return f"{model}/{version}-{digest}"
