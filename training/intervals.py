"""95% confidence intervals, from independent episodes or runs."""

from collections.abc import Callable

import numpy as np

from training.types import DoubleArray

Bounds = tuple[float, float]

ERROR_RATE = 0.05
BOOTSTRAP_SAMPLES = 2_000
# Share of the bet that could lose everything: below 1, an episode at a bound leaves some wealth.
LARGEST_BET = 0.99


def betting_interval(returns: DoubleArray, bounds: Bounds) -> Bounds:
    """An interval that covers the mean return in at least 95% of cases, for any distribution.

    Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting",
    section 4. Bets that are fair if the mean is `m` multiply the initial wealth by 40 with a
    probability of at most 1/40 (Ville's inequality). The interval has each `m` for which neither
    bets on larger returns nor bets on smaller ones ever did so. The bets are the paper's
    predictable plug-in for a fixed number of returns.

    Args:
        returns: of independent episodes `[E]`, in any order that does not depend on them.
        bounds: the lowest and the highest possible return.
    """
    low, high = bounds
    unit = (returns - low) / (high - low)
    below, above = _lower_limit(unit), _lower_limit(1 - unit)
    return low + (high - low) * below, high - (high - low) * above


def bootstrap_interval(
    statistic: Callable[..., DoubleArray], *samples: DoubleArray
) -> tuple[float, float]:
    """An approximate interval: the percentile bootstrap (Efron 1979), stratified by sample.

    Unlike the normal interval it stays within the possible values. It covers far less than 95%
    where rare values decide the statistic, such as one failure in a hundred episodes. Equal
    samples give equal intervals: the resampling has a generator of its own.

    Args:
        statistic: maps samples, each `[B, n]`, to `[B]` along the last axis.
        samples: arrays `[n]`, which are resampled separately.
    """
    rng = np.random.default_rng(0)
    resampled = [rng.choice(sample, (BOOTSTRAP_SAMPLES, len(sample))) for sample in samples]
    low, high = np.quantile(statistic(*resampled), [ERROR_RATE / 2, 1 - ERROR_RATE / 2])
    return float(low), float(high)


def mean(values: DoubleArray) -> DoubleArray:
    """The mean along the last axis."""
    return np.asarray(values.mean(axis=-1))


def _lower_limit(unit: DoubleArray) -> float:
    """The largest mean in [0, 1] that bets on larger returns disprove."""
    count = len(unit)
    times = np.arange(1, count + 1)
    means = (1 / 2 + np.cumsum(unit)) / (times + 1)
    variances = (1 / 4 + np.cumsum((unit - means) ** 2)) / (times + 1)
    known_before = np.concatenate([[1 / 4], variances[:-1]])
    disproof = np.log(2 / ERROR_RATE)
    bets = np.sqrt(2 * disproof / (count * known_before))

    def is_disproved(guess: float) -> bool:
        gains = np.minimum(bets, LARGEST_BET / guess) * (unit - guess)
        return bool(np.cumsum(np.log1p(gains)).max() >= disproof)

    # Bisection works because the wealth falls as the mean rises.
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_disproved(middle) else (low, middle)
    return low
