"""Which of two versions has the larger mean return: an answer that is valid at any time.

Common tests assume a sample size fixed beforehand: if they are repeated after every episode, they
sooner or later find a difference between equal versions. A confidence sequence covers the
difference at all times simultaneously.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]
Answer = Literal["better", "worse", "not yet known"]

CONFIDENCE = 0.95
# Fractions of the capital that are bet: small differences are found by small bets.
BETS = 0.9 * 0.5 ** np.arange(6)
# Log-capital that disproves a difference; each side gets half of the error rate.
DISPROOF = float(np.log(2 / (1 - CONFIDENCE)))
_MIN_PAIRS = 10  # fewer say nothing about the growth to come
_BISECTIONS = 40


class Difference(NamedTuple):
    """The challenger's mean return minus the champion's, in units of return.

    Attributes:
        answer: whether the interval is above, below or around 0.
        low, high: the interval, which only gets narrower. It is empty, `low` above `high`, where
            the difference has changed between the episodes.
        more_episodes: a rough estimate of how many more would bring an answer other than "not yet
            known"; None if there is one already, or none is in sight.
    """

    answer: Answer
    low: float
    high: float
    more_episodes: int | None


def difference(
    is_challenger: Sequence[bool], returns: Sequence[float], bounds: tuple[float, float]
) -> Difference:
    """Compare the mean returns of two versions by the episodes so far.

    Args:
        is_challenger: which version decided in each episode `[E]`.
        returns: of the episodes `[E]`, in an order that does not depend on the returns.
        bounds: the lowest and the highest possible return.
    """
    low, high = bounds
    pairs = paired_differences(is_challenger, returns) / (high - low)
    # Scaled to [0, 1]: 1/2 is no difference.
    unit = (pairs + 1) / 2
    below, above = _lower_limit(unit), 1 - _lower_limit(1 - unit)
    # The limit itself is disproved, so a limit of exactly 1/2 is an answer.
    answer: Answer = "better" if below >= 0.5 else "worse" if above <= 0.5 else "not yet known"
    more = _more_pairs(unit) if answer == "not yet known" else None
    if below > above:  # every constant difference is disproved
        answer = "not yet known"
    return Difference(
        answer,
        (high - low) * (2 * below - 1),
        (high - low) * (2 * above - 1),
        None if more is None else int(np.ceil(more * len(returns) / len(unit))),
    )


def paired_differences(is_challenger: Sequence[bool], returns: Sequence[float]) -> DoubleArray:
    """Differences `[P]`, challenger minus champion; each return is used in at most one pair.

    A pair is made as soon as both versions have unused returns. It takes one return of the version
    with fewer episodes so far, and the mean of all unused returns of the other: a canary with a
    share of 10 % is compared with nine times as many episodes of the champion, which makes pairs
    less variable.

    Pairing depends on the order and versions of the episodes, never on returns. So the expected
    value of each pair is the difference of the mean returns, whatever the earlier pairs were, and
    bets on it are fair. This also holds while both means change by the same amount.

    Args:
        is_challenger: which version decided in each episode `[E]`.
        returns: of the episodes `[E]`.
    """
    waiting: tuple[deque[float], deque[float]] = (deque(), deque())
    counts = [0, 0]
    differences = []
    for of_challenger, one_return in zip(is_challenger, returns, strict=True):
        waiting[of_challenger].append(one_return)
        counts[of_challenger] += 1
        if not (waiting[0] and waiting[1]):
            continue
        fewer = int(counts[1] <= counts[0])
        others = waiting[1 - fewer]
        one = waiting[fewer].popleft()
        gain = one - sum(others) / len(others)
        others.clear()
        differences.append(gain if fewer else -gain)
    return np.array(differences, np.float64)


def log_capital(unit: DoubleArray, mean: float) -> DoubleArray:
    """The log-capital after each value `[P]` of bets that the true mean is higher than `mean`.

    A capital of 1 is split equally among `BETS`; each part bets its constant fraction on every
    value. If `mean` is true, the sum is a martingale: it ever reaches 1/p with probability at most
    p (Ville's inequality), however often it is checked. It falls as `mean` rises. Waudby-Smith and
    Ramdas 2023, "Estimating means of bounded random variables by betting" (JRSS-B 86), sections 4
    and 5; a mixture of constant bets, as in Cover's universal portfolio.

    Args:
        unit: values in [0, 1] `[P]`.
        mean: the mean to disprove, in (0, 1].
    """
    parts = np.cumsum(np.log1p(BETS[:, None] * (unit / mean - 1)), axis=1)
    capital: DoubleArray = np.logaddexp.reduce(parts, axis=0) - np.log(len(BETS))
    return capital


def _lower_limit(unit: DoubleArray) -> float:
    """The largest mean in [0, 1] that bets on a higher one have ever disproved, or 0."""
    low, high = 0.0, 1.0
    if not len(unit):
        return low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_disproved = log_capital(unit, middle).max() >= DISPROOF
        low, high = (middle, high) if is_disproved else (low, middle)
    return low


def _more_pairs(unit: DoubleArray) -> float | None:
    """Estimate how many more pairs like those so far would disprove that there is no difference.

    It uses the growth of the log-capital per pair under the best constant bet in hindsight.
    """
    if len(unit) < _MIN_PAIRS:
        return None
    side = unit if unit.mean() >= 0.5 else 1 - unit
    growth = np.log1p(BETS[:, None] * (2 * side - 1)).mean(axis=1).max()
    if growth <= 0:
        return None
    return float((DISPROOF - log_capital(side, 0.5)[-1]) / growth)
