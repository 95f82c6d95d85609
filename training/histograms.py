"""How often each number of an observation had which values, for the comparison when served."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.types import FloatArray

# With fewer, two evaluations of one CartPole policy can differ by more than what is an alarm.
MIN_EPISODES = 50
MAX_NUMBERS = 256  # each is a time series of the service that compares
MAX_ROWS = 65_536  # that are kept of an evaluation, about
QUANTILES = np.arange(1, 10) / 10


class Histograms(NamedTuple):
    """Of each of the `O` numbers of an observation, the bins and the share of rows in each.

    A value is in the bin after the last edge that is not larger than it. The first bin has no
    lower end and the last no upper one.
    """

    rows: int  # of the evaluation: how many steps its episodes had
    edges: list[list[float]]  # between the bins, increasing; float32
    shares: list[list[float]]  # one more than edges; they add up to 1


class KeptSteps:
    """Observations of all steps of some episodes, or of each 2nd, 4th, ... if there are many.

    Which steps are kept does not depend on how the episodes are shared out.
    """

    def __init__(self, episodes: int) -> None:
        """Keep those of a share of so many episodes in all."""
        self._max_steps = max(1, MAX_ROWS // episodes)
        self.interval = 1
        self._steps: list[FloatArray] = []

    def add(self, step: int, observations: FloatArray) -> None:
        """Keep the observations `[B, O]` of a step, the next from 0, of episodes that go on."""
        if step % self.interval == 0:
            self._steps.append(observations.copy())
            if len(self._steps) > self._max_steps:
                del self._steps[1::2]
                self.interval *= 2

    def rows(self, interval: int) -> FloatArray:
        """The observations `[N, O]` of each step that is a multiple of a longer interval."""
        return np.concatenate(self._steps[:: interval // self.interval])


def histograms(shares: Sequence[KeptSteps], episodes: int, rows: int) -> Histograms | None:
    """Histograms of the observations of an evaluation, or None if they would tell nothing.

    The edges are the deciles of each number. A value that is several deciles has a bin of its
    own, so that other values of a number with few values are told from it.

    Args:
        shares: what was kept of each share.
        episodes: of all shares.
        rows: steps of all episodes, kept or not.
    """
    interval = max(share.interval for share in shares)
    observations = np.concatenate([share.rows(interval) for share in shares])
    if episodes < MIN_EPISODES or observations.shape[1] > MAX_NUMBERS:
        return None
    all_edges, all_shares = [], []
    for column in observations.T:
        deciles = np.quantile(column, QUANTILES, method="inverted_cdf").astype(np.float32)
        repeated = deciles[1:][deciles[1:] == deciles[:-1]]
        with np.errstate(over="ignore"):  # nothing finite is above the largest number
            above = np.nextafter(repeated, np.float32(np.inf))
        edges = np.unique(np.concatenate([deciles, above[np.isfinite(above)]]))
        bins = np.searchsorted(edges, column, side="right")
        counts = np.bincount(bins, minlength=len(edges) + 1)
        all_edges.append(edges.tolist())
        all_shares.append((counts / len(column)).tolist())
    return Histograms(rows, all_edges, all_shares)
