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

    Each process writes files in a folder of its own, named by its `slot`, and continues those that
    its predecessor in that slot left. Without a folder, the arrays are not shared.
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
        for path in self._folder.glob(f"*/{name}"):
            with suppress(FileNotFoundError):  # its version was unloaded just now
                parts.append(np.fromfile(path, self._dtype))
        return [part for part in parts if part.size == size]  # one may be only partly written

    def keep(self, names: Iterable[str]) -> set[str]:
        """Remove this process's other arrays, and those of its predecessors in its slot.

        Args:
            names: of the arrays to keep. Read only once the present arrays are listed, so that one
                that another thread begins meanwhile stays.

        Returns:
            The names of the removed arrays.
        """
        present = set(self._own)
        if self._folder is not None:
            own = self._folder / str(self._slot)
            present.update(path.relative_to(own).as_posix() for path in own.glob("*/*"))
        removed = present.difference(names)
        with self._lock:
            for name in removed:
                self._own.pop(name, None)
                if self._folder is not None:
                    self._path(self._folder, name).unlink(missing_ok=True)
        return removed

    def _path(self, folder: Path, name: str) -> Path:
        return folder / str(self._slot) / name

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
        arrays: hold the inferences of all processes of a service, and what
            `serving/record/drift.py` counts.
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
            own = self._own[key] = self.arrays.own(array_name("inferences", key), _SIZE)
        own[:-1] += inferences[:-1]
        own[-1] = inferences.last_milliseconds

    def total(self, model: str, version: int, digest: str) -> Inferences:
        """The sum of all processes."""
        parts = self.arrays.all(array_name("inferences", (model, version, digest)), _SIZE)
        table = np.stack([np.zeros(_SIZE, np.int64), *parts])
        sums = Inferences._make(table.sum(0).tolist())
        return sums._replace(last_milliseconds=table[:, -1].max().item())

    def keep(self, loaded: Iterable[tuple[str, int, str]]) -> None:
        """Forget all versions of models but these, and their drift."""
        kinds = ("inferences", "drift")
        removed = self.arrays.keep(array_name(kind, key) for key in loaded for kind in kinds)
        self._own = {
            key: array
            for key, array in self._own.items()
            if array_name("inferences", key) not in removed
        }


def array_name(kind: str, *versions: tuple[str, int, str]) -> str:
    """The name of an array about versions of one model, each a model, version and digest."""
    parts = "-".join(f"{version}-{digest}" for _, version, digest in versions)
    return f"{versions[0][0]}/{kind}-{parts}"
