"""Drift: whether live observations are distributed as in the evaluation that the card describes.

The population stability index of a number is the sum over its bins of (live - expected) *
ln(live / expected), both being shares of rows. Up to 0.1 is usually taken as no change, and from
0.25 as a major one (Siddiqi 2006, Credit Risk Scorecards; du Pisanie et al. 2023,
arXiv:2303.01227, review it). Rows of an episode are not independent: episodes count, not rows.
"""

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.errors import NotFoundError, NotReadyError
from serving.policy.artefact import Histograms
from serving.policy.observations import FloatArray
from serving.statistics import SharedArrays, array_name

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow
    from serving.registry.repository import Repository  # does too

Counts = npt.NDArray[np.int64]

# Replaces smaller shares: an empty bin would make the index infinite.
SMALLEST_SHARE = 1e-4
# Clients that start their episodes together are all in the same phase of them. With at most this
# many rows of each call, the window spans many calls, and so all phases.
MAX_ROWS_PER_CALL = 64
BLOCKS = 16  # in the window, which advances by one block; one more is being filled
ROWS_AT_ONCE = 512  # counted in one call


def stability_index(expected: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """The population stability index of two lists of shares `[K]` that add up to 1 each."""
    one, other = (np.maximum(shares, SMALLEST_SHARE) for shares in (expected, live))
    return float(((other - one) * np.log(other / one)).sum())


class Bins:
    """The `K` bins of a card's histograms: those of all `O` numbers, one after the other.

    Attributes:
        block_rows: rows in a block. The window has at least as many rows as the evaluation had,
            and so about as many episodes, whatever their length: both are equally certain.
        size: of the array of all blocks, each with the time when it was full and its counts `[K]`.
    """

    def __init__(self, histograms: Histograms) -> None:
        self._edges = [np.array(edges, np.float32) for edges in histograms.edges]
        self._ends = np.cumsum([len(shares) for shares in histograms.shares]).tolist()
        self._starts = [0, *self._ends[:-1]]
        self._expected = histograms.shares
        self.block_rows = math.ceil(histograms.rows / BLOCKS / ROWS_AT_ONCE) * ROWS_AT_ONCE
        self.size = (BLOCKS + 1) * (1 + self._ends[-1])

    def count(self, columns: FloatArray) -> Counts:
        """How many of the observations in columns `[O, B]` are in each bin `[K]`."""
        bins = [
            start + np.searchsorted(edges, column, side="right")
            for start, edges, column in zip(self._starts, self._edges, columns, strict=True)
        ]
        return np.bincount(np.concatenate(bins), minlength=self._ends[-1])

    def indices(self, arrays: Iterable[Counts]) -> list[float] | None:
        """The stability index `[O]` of the newest full blocks, or None if there are too few.

        Args:
            arrays: `[size]`, of each process.
        """
        blocks = np.concatenate([np.empty(0, np.int64), *arrays]).reshape(-1, 1 + self._ends[-1])
        # A block that is not full, or is cleared while it is read, has counts that add up to less.
        rows = blocks[:, 1:].sum(axis=1)
        full = blocks[rows == self.block_rows * len(self._edges)]
        if len(full) < BLOCKS:
            return None
        counts = full[np.argsort(full[:, 0])[-BLOCKS:], 1:].sum(axis=0)
        return [
            stability_index(shares, counts[start:end] / (BLOCKS * self.block_rows))
            for shares, start, end in zip(self._expected, self._starts, self._ends, strict=True)
        ]


class LiveCounts:
    """Counts of this process's observations in its latest blocks: a new one replaces the oldest."""

    def __init__(self, bins: Bins, array: Counts, numbers: int) -> None:
        """Count in an array `[size]`, which a predecessor may have written."""
        self._bins = bins
        self._blocks = array.reshape(BLOCKS + 1, -1)
        self._lock = threading.Lock()
        self._waiting = np.empty((numbers, ROWS_AT_ONCE), np.float32)
        self._num_waiting = 0
        self._begin()

    def add(self, observations: FloatArray) -> None:
        """Count observations `[B, O]`, no more than `ROWS_AT_ONCE`."""
        with self._lock:
            start = self._num_waiting
            end = start + len(observations)
            if end >= ROWS_AT_ONCE:
                room = ROWS_AT_ONCE - start
                self._waiting[:, start:] = observations[:room].T
                self._count()
                observations, start, end = observations[room:], 0, end - ROWS_AT_ONCE
            self._waiting[:, start:end] = observations.T
            self._num_waiting = end

    def _begin(self) -> None:
        self._block = self._blocks[self._blocks[:, 0].argmin()]
        self._block[:] = 0
        self._rows = 0

    def _count(self) -> None:
        self._block[1:] += self._bins.count(self._waiting)
        self._rows += ROWS_AT_ONCE
        if self._rows == self._bins.block_rows:
            self._block[0] = time.monotonic_ns()  # the same clock in all processes
            self._begin()


class Drift(Collector):
    """Counts the observations that loaded policies receive, and compares them with their cards.

    A policy's counts are deleted when it is unloaded, by `Statistics.keep`.
    """

    def __init__(self, arrays: SharedArrays, repository: "Repository") -> None:
        """Count in arrays that all processes share, and report on the policies that are served."""
        self._arrays = arrays
        self._repository = repository
        self._live: WeakKeyDictionary[Policy, LiveCounts] = WeakKeyDictionary()
        self._lock = threading.Lock()  # one thread opens an array at a time

    def add(self, policy: "Policy", observations: FloatArray) -> None:
        """Count observations `[B, O]` of one call for which actions were sampled.

        The evaluation sampled its actions too; other actions lead to other observations.
        """
        histograms = policy.card.observations.histograms
        if histograms is None:
            return
        if len(observations) > MAX_ROWS_PER_CALL:
            observations = observations[:: math.ceil(len(observations) / MAX_ROWS_PER_CALL)]
        live = self._live.get(policy) or self._start(policy, histograms)
        live.add(observations)

    def indices(self, policy: "Policy") -> dict[str, float]:
        """The stability index of each number, by its name; empty while too little was counted."""
        known = policy.card.observations
        if known.histograms is None:
            return {}
        bins = Bins(known.histograms)
        indices = bins.indices(self._arrays.all(array_name("drift", policy.key), bins.size))
        return {} if indices is None else dict(zip(known.names, indices, strict=True))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metric, in the form that prometheus_client expects."""
        meaning = "Population stability index of recent observations against the evaluation's."
        family = GaugeMetricFamily(
            "policy_observation_psi", meaning, labels=["model", "observation"]
        )
        for model in self._repository.names():
            with suppress(NotFoundError, NotReadyError):
                for name, index in self.indices(self._repository.policy(model)).items():
                    family.add_metric([model, name], index)
        yield family

    def _start(self, policy: "Policy", histograms: Histograms) -> LiveCounts:
        with self._lock:
            if policy not in self._live:
                bins = Bins(histograms)
                array = self._arrays.own(array_name("drift", policy.key), bins.size)
                self._live[policy] = LiveCounts(bins, array, len(histograms.edges))
            return self._live[policy]
