"""What each loaded version was asked and how long that took, in all worker processes.

Prometheus's counters are kept for ever; these numbers go when their version is unloaded.
"""

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)


class Inferences(NamedTuple):
    """Requests that were decided, since their version was loaded.

    Requests that are decided together are decoded, decided and encoded together, and each waits
    for all of them: these times count once for each request.
    """

    requests: int = 0
    rows: int = 0
    executions: int = 0
    decode_nanoseconds: int = 0
    decide_nanoseconds: int = 0
    encode_nanoseconds: int = 0
    failures: int = 0
    failure_nanoseconds: int = 0
    last_milliseconds: int = 0  # of Unix time, when the last one ended


class Statistics:
    """Inferences by model and version, kept in a folder that all processes of a service share.

    Each process writes its own files, by its `slot`, and goes on from those that its predecessor
    in that slot left. Without a folder the numbers are of this process alone.
    """

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        self._folder = folder
        self._slot = slot
        self._lock = threading.Lock()  # one thread opens a file at a time
        self._own: dict[tuple[str, int], npt.NDArray[np.int64]] = {}

    def add(self, model: str, version: int, inferences: Inferences) -> None:
        """Add what was decided."""
        own = self._own.get((model, version))
        if own is None:
            with self._lock:
                own = self._own.get((model, version))
                if own is None:
                    own = self._own[model, version] = self._open(model, version)
        own[:-1] += inferences[:-1]
        own[-1] = inferences.last_milliseconds

    def total(self, model: str, version: int) -> Inferences:
        """The sum of all processes."""
        parts = [np.zeros(len(Inferences._fields), np.int64)]
        if self._folder is None:
            parts += [own for key, own in self._own.items() if key == (model, version)]
        else:
            for path in (self._folder / model / str(version)).glob("*"):
                with suppress(FileNotFoundError):  # its version was unloaded just now
                    part = np.fromfile(path, np.int64)
                    parts += [part] if part.size else []  # another process makes it just now
        table = np.stack(parts)
        sums = Inferences._make(table.sum(0).tolist())
        return sums._replace(last_milliseconds=table[:, -1].max().item())

    def keep(self, loaded: Iterable[tuple[str, int]]) -> None:
        """Forget all versions of models but these."""
        for model, version in self._own.keys() - set(loaded):
            del self._own[model, version]
            if self._folder is not None:
                self._path(self._folder, model, version).unlink(missing_ok=True)

    def _path(self, folder: Path, model: str, version: int) -> Path:
        return folder / model / str(version) / str(self._slot)

    def _open(self, model: str, version: int) -> npt.NDArray[np.int64]:
        zeros = np.zeros(len(Inferences._fields), np.int64)
        if self._folder is None:
            return zeros
        path = self._path(self._folder, model, version)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                # Written, to allocate its space: without, a write through the map is a SIGBUS.
                path.write_bytes(zeros.tobytes())
            return np.asarray(np.memmap(path, np.int64, "r+"))
        except (OSError, ValueError) as error:
            logger.error("from now on the statistics are of this worker alone: %s", error)
            with suppress(OSError):
                path.unlink()  # of a part of it, if there was no room for all
            self._folder = None
            return zeros
