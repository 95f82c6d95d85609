"""Histograms of each number of an observation, to compare with the observations when served."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.types import BoolArray, FloatArray

# With fewer, two evaluations of one CartPole policy can differ by more than the alarm threshold.
MIN_EPISODES = 50
MAX_NUMBERS = 256  # each becomes a time series of the service
MAX_ROWS = 65_536  # kept per evaluation
MAX_EPISODES = 256  # that rows are kept of: with more, there would be too few steps of each
QUANTILES = np.arange(1, 10) / 10


class Histograms(NamedTuple):
    """The bins of each of the `O` numbers of an observation, and the share of rows in each bin.

    A value is in the bin after the last edge that is not larger than it. The first bin has no
    lower end and the last no upper one.
    """

    rows: int  # all steps of the evaluation's episodes
    edges: list[list[float]]  # between the bins, increasing; float32
    shares: list[list[float]]  # one more than edges; they add up to 1


class KeptSteps:
    """Observations of the first episodes: of all their steps or, if there are many, of random ones.

    Which steps are kept does not depend on how the episodes are split into shares. They are random
    because a policy may behave periodically, such as alike on every 2nd step.
    """

    def __init__(self, episodes: int, first: int = 0) -> None:
        """Keep steps of a share that begins with episode number `first` of `episodes` in all."""
        self.max_steps = MAX_ROWS // min(episodes, MAX_EPISODES)
        self._max_episodes = max(0, MAX_EPISODES - first)
        self._priorities = np.random.default_rng(0)  # the same in every share
        self.steps: dict[float, FloatArray] = {}  # by their priorities: the smallest are kept
        self._largest = 1.0  # of these priorities, once no more fit

    def add(self, observations: FloatArray, running: BoolArray) -> None:
        """Take the next step's observations `[B, O]`, of those episodes `[B]` that still run."""
        priority, few = self._priorities.random(), slice(self._max_episodes)
        if priority < self._largest:
            self.steps[priority] = observations[few][running[few]]
        if len(self.steps) > self.max_steps:
            del self.steps[max(self.steps)]
            self._largest = max(self.steps)


def histograms(shares: Sequence[KeptSteps], episodes: int, rows: int) -> Histograms | None:
    """Histograms of an evaluation's observations; None for too few episodes or too many numbers.

    The edges are the deciles of each number. A value that is several deciles has a bin of its
    own, so that the values of a number with few different ones stay apart.

    Args:
        shares: what was kept of each share.
        episodes: how many all shares have.
        rows: steps of all episodes, kept or not.
    """
    kept = sorted(set().union(*(share.steps for share in shares)))[: shares[0].max_steps]
    observations = np.concatenate(
        [share.steps[priority] for share in shares for priority in kept if priority in share.steps]
    )
    if episodes < MIN_EPISODES or observations.shape[1] > MAX_NUMBERS:
        return None
    all_edges, all_shares = [], []
    for column in observations.T:
        deciles = np.quantile(column, QUANTILES, method="inverted_cdf").astype(np.float32)
        repeated = deciles[1:][deciles[1:] == deciles[:-1]]
        with np.errstate(over="ignore"):  # above the largest float32 is infinity
            above = np.nextafter(repeated, np.float32(np.inf))
        edges = np.unique(np.concatenate([deciles, above[np.isfinite(above)]]))
        bins = np.searchsorted(edges, column, side="right")
        counts = np.bincount(bins, minlength=len(edges) + 1)
        all_edges.append(edges.tolist())
        all_shares.append((counts / len(column)).tolist())
    return Histograms(rows, all_edges, all_shares)
