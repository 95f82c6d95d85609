"""What the metrics are to be told of decisions and answers.

Telling them of many at once takes less time than of one after the other: the numbers are in files
that all processes share, and a worker that decides in between finds them in no cache.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from serving.metrics import Metrics
from serving.policy.decide import ActResult, DecisionRequest, Decisions, Results
from serving.record.drift import Drift
from serving.statistics import Inferences

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow

logger = logging.getLogger(__name__)

T = TypeVar("T")
Times = tuple[int, int, int, int]
# Requests wait for as long as it takes to write them.
_MOST_CALLS = 32
_MOST_ROWS = 1_024


class Tally:
    """Keeps what was decided and answered until it is written to the metrics.

    Any thread may add to it, and any may write: it writes what all have added.
    """

    def __init__(self, metrics: Metrics, drift: Drift) -> None:
        self._metrics = metrics
        self._drift = drift
        self._lock = threading.Lock()
        self._rows = 0
        self._decided: deque[tuple[Policy, Decisions]] = deque()
        self._timed: deque[tuple[Sequence[DecisionRequest], Results, Times]] = deque()
        self._answered: deque[tuple[str, int, float, int]] = deque()

    def decided(self, policy: "Policy", decisions: Decisions) -> None:
        """Add decisions of one call of a policy."""
        self._rows += sum(decisions.rows)
        self._decided.append((policy, decisions))

    def timed(self, requests: Sequence[DecisionRequest], results: Results, times: Times) -> None:
        """Add requests that were decided together, for the versions that decided.

        Args:
            requests: those that were decided together.
            results: theirs, in their order.
            times: nanoseconds at which decoding, deciding and encoding began, and the end.
        """
        self._timed.append((requests, results, times))

    def answered(self, route: str, status: int, seconds: float, requests: int) -> None:
        """Add requests that were answered alike and together, in that time."""
        self._answered.append((route, status, seconds, requests))

    def is_full(self) -> bool:
        """Whether it should be written, however busy the process is."""
        return len(self._timed) >= _MOST_CALLS or self._rows >= _MOST_ROWS

    def write(self) -> None:
        """Tell the metrics all that was added before; what cannot be counted is logged."""
        with self._lock:
            try:
                self._write()
            except Exception:  # such as no room for another label: no client is to notice
                logger.exception("decisions and answers could not be counted")

    def _write(self) -> None:
        self._rows = 0
        of_policy: dict[Policy, list[Decisions]] = {}
        for policy, decisions in _taken(self._decided):
            of_policy.setdefault(policy, []).append(decisions)
        for policy, calls in of_policy.items():
            self._write_decided(policy, calls)
        for requests, results, times in _taken(self._timed):
            self._write_timed(requests, results, times)
        for route, status, seconds, count in _taken(self._answered):
            self._metrics.answered(route, status, seconds, count)

    def _write_decided(self, policy: "Policy", calls: list[Decisions]) -> None:
        outputs = [call.outputs for call in calls if call.outputs is not None]
        self._metrics.decided(
            policy.name,
            policy.card.actions.names,
            np.concatenate([output.actions for output in outputs]),
            np.concatenate([output.action_probabilities for output in outputs]),
            outputs[-1].state_values,
        )
        self._metrics.requested(
            policy.name,
            list(chain.from_iterable(call.rows for call in calls)),
            sum(call.out_of_range_rows for call in calls),
        )
        for call in calls:
            if call.sampled is not None:
                self._drift.add(policy, call.sampled)

    def _write_timed(
        self, requests: Sequence[DecisionRequest], results: Results, times: Times
    ) -> None:
        of_policy: dict[Policy, Results] = {}
        for request, result in zip(requests, results, strict=True):
            of_policy.setdefault(request.policy, []).append(result)
        decode, decide, encode = (after - before for before, after in pairwise(times))
        for policy, of_this in of_policy.items():
            done = [result for result in of_this if isinstance(result, ActResult)]
            failures = len(of_this) - len(done)
            inferences = Inferences(
                requests=len(done),
                rows=sum(result.stop - result.start for result in done),
                executions=1 if done else 0,
                decode_nanoseconds=len(done) * decode,
                decide_nanoseconds=len(done) * decide,
                encode_nanoseconds=len(done) * encode,
                failures=failures,
                failure_nanoseconds=failures * (times[-1] - times[0]),
                last_milliseconds=time.time_ns() // 1_000_000,
            )
            self._metrics.statistics.add(policy.name, policy.version, inferences)


def _taken(kept: deque[T]) -> list[T]:
    """What was kept by now, which is kept no longer."""
    return [kept.popleft() for _ in range(len(kept))]
