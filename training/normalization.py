"""Running means and variances: of observations, and of the returns that rewards are scaled by.

Both are as in Engstrom et al. 2020, "Implementation matters in deep policy gradients".
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from training.types import BoolArray, DoubleArray, FloatArray

CLIP = 10.0
EPSILON = 1e-8  # added to variances


class Normalization(NamedTuple):
    """What standardises observations: NumPy arrays or TensorFlow variables, float32 `[O]`."""

    mean: Any
    scale: Any  # 1 / standard deviation

    def __call__(self, observations: Any, library: ModuleType) -> Any:
        """Map observations `[B, O]` to numbers between -10 and 10, in NumPy or TensorFlow."""
        standardized = (observations - self.mean) * self.scale
        return library.minimum(library.maximum(standardized, -CLIP), CLIP)


class Moments(NamedTuple):
    """Mean and variance of all samples so far, along their first axis."""

    samples: float  # how many
    mean: DoubleArray
    variance: DoubleArray

    def including(self, added: FloatArray | DoubleArray) -> "Moments":
        """These moments with more samples `[S, ...]` (Chan et al. 1979)."""
        added = added.astype(np.float64)
        samples = self.samples + len(added)
        share = len(added) / samples
        difference = added.mean(axis=0) - self.mean
        between = share * (1 - share) * difference**2
        variance = (1 - share) * self.variance + share * added.var(axis=0) + between
        return Moments(samples, self.mean + share * difference, variance)

    def normalization(self) -> Normalization:
        """The normalisation to this mean and variance."""
        scale = 1 / np.sqrt(self.variance + EPSILON)
        return Normalization(self.mean.astype(np.float32), scale.astype(np.float32))


def no_samples(*shape: int) -> Moments:
    """The moments before the first sample, for samples of the given shape."""
    return Moments(0.0, np.zeros(shape), np.ones(shape))


class RewardScale(NamedTuple):
    """The scale of rewards: the standard deviation of the discounted return so far."""

    moments: Moments
    returns: DoubleArray  # [N], discounted, of the unfinished episodes

    def including(
        self, rewards: FloatArray, ended: BoolArray, valid: BoolArray, gamma: float
    ) -> "RewardScale":
        """The scale after the valid rewards of one more rollout; all arrays are `[T, N]`."""
        returns, seen, rewards = self.returns, np.empty(rewards.shape), rewards * valid
        for t in range(len(rewards)):
            returns = gamma * returns + rewards[t]
            seen[t] = returns
            returns = returns * ~ended[t]
        return RewardScale(self.moments.including(seen[valid]), returns)

    def scale(self, rewards: FloatArray) -> FloatArray:
        """Scale rewards for learning, clipped to -10 to 10."""
        scaled = rewards / np.sqrt(self.moments.variance + EPSILON)
        return np.clip(scaled, -CLIP, CLIP).astype(np.float32)
