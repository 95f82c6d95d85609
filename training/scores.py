"""Statistics of several runs of a method, as in rliable (Agarwal et al. 2021, arXiv:2108.13264).

Their intervals are `training.intervals.bootstrap_interval`, with the runs as samples.
"""

import numpy as np

from training.types import DoubleArray


def interquartile_mean(scores: DoubleArray) -> DoubleArray:
    """The mean of the middle half along the last axis, `[..., R]` to `[...]`.

    A quarter of the runs, rounded down, is left out on each side.
    """
    cut = scores.shape[-1] // 4
    return np.asarray(np.sort(scores)[..., cut : scores.shape[-1] - cut].mean(axis=-1))


def probability_of_improvement(scores: DoubleArray, baseline: DoubleArray) -> DoubleArray:
    """Probability that a run beats one of the baseline: `[..., R]` and `[..., S]` to `[...]`.

    This is Mann and Whitney's U divided by the number of pairs; equal pairs count half.
    """
    differences = scores[..., :, None] - baseline[..., None, :]
    return np.asarray(((1 + np.sign(differences)) / 2).mean(axis=(-2, -1)))
