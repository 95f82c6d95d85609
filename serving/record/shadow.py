"""The shadow: a version that decides what was just decided again, after the answers are sent.

It runs in the worker's own loop, between answers, because concurrent calls of policies are slower
than calls one after another. Clients notice only the time that it takes, so that is bounded; rows
that do not fit are counted as skipped.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.errors import NotFoundError, NotReadyError
from serving.metrics import Metrics
from serving.policy.decide import ActResult, DecisionRequest, Results
from serving.policy.observations import FloatArray
from serving.policy.outputs import PolicyOutputs
from serving.record.comparison import Sums, Table, compare, report
from serving.schemas import Comparison, ModelVersion
from serving.statistics import array_name

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow
    from serving.registry.repository import Repository  # does too

logger = logging.getLogger(__name__)

# At most this share of a worker's time: it delays fewer than one request in 100, so the 99th
# percentile of latency stays the same.
TIME_SHARE = 0.005
MAX_ROWS = 512  # that are kept until they are compared, in one call
RETRY_SECONDS = 60.0  # after a failure


class _Batch(NamedTuple):
    observations: FloatArray  # [B, O]
    outputs: PolicyOutputs  # of the served version


def _together(done: Sequence[ActResult]) -> tuple[FloatArray, PolicyOutputs]:
    """The rows of results of one batch; the batch itself if they are all of its rows."""
    observations, outputs = done[0].observations, done[0].batch
    if sum(one.stop - one.start for one in done) == len(observations):
        return observations, outputs
    rows = np.concatenate([np.arange(one.start, one.stop) for one in done])
    return observations[rows], PolicyOutputs._make(output[rows] for output in outputs)


class _Pair:
    """The served version of a model and its shadow."""

    def __init__(self, served: "Policy", shadow: "Policy") -> None:
        self.served, self.shadow = served, shadow
        self.array_name = array_name("shadow", served.key, shadow.key)
        self.batches: list[_Batch] = []
        self.rows = 0  # of the batches
        self.skipped = 0
        self.paused_until = 0.0  # by `time.monotonic`, after a failure
        self.has_failed = False

    def size(self) -> int:
        """Length of the array that holds the comparison of this pair."""
        return Table.size(len(self.served.card.observations.names))


class Shadows(Collector):
    """Runs the shadows of all models, and compares them with the served versions."""

    def __init__(self, repository: "Repository", metrics: Metrics) -> None:
        self._repository = repository
        self._metrics = metrics
        self._lock = threading.Lock()  # decisions are offered by several threads
        self._pairs: dict[str, _Pair] = {}  # by model
        self._next = 0.0  # time at which a shadow may decide again

    def offer(self, requests: Sequence[DecisionRequest], results: Results) -> None:
        """Keep what a version has just decided, if it has a shadow.

        Requests that named a version are left out: they are not the served version's own traffic.

        Args:
            requests: those that one version decided together.
            results: their results, in the same order.
        """
        served = requests[0].policy
        shadow = self._repository.shadow(served)
        if shadow is None:
            return
        done = [
            result
            for request, result in zip(requests, results, strict=True)
            if request.selection and isinstance(result, ActResult)
        ]
        if not done:
            return
        observations, outputs = _together(done)
        with self._lock:
            pair = self._pairs.get(served.name)
            if pair is None or (pair.served, pair.shadow) != (served, shadow):
                pair = self._pairs[served.name] = _Pair(served, shadow)
            is_resting = pair.paused_until > time.monotonic()
            room = 0 if is_resting else MAX_ROWS - pair.rows
            rows = len(observations)
            if rows > room:
                observations = observations[:room]
                outputs = PolicyOutputs._make(output[:room] for output in outputs)
                pair.skipped += rows - room
            if room:
                pair.batches.append(_Batch(observations, outputs))
                pair.rows += len(observations)

    def is_due(self) -> bool:
        """Whether there is something to do, and time for it."""
        return bool(self._pairs) and time.monotonic() >= self._next

    def run(self, *, is_busy: bool) -> None:
        """Compare what was offered; the worker calls this after the answers are sent.

        Args:
            is_busy: whether requests are waiting; if so, only skipped rows are counted.
        """
        started = time.monotonic()
        for pair in list(self._pairs.values()):
            with self._lock:
                skipped, pair.skipped = pair.skipped, 0
                batches: list[_Batch] = []
                if not is_busy:
                    batches, pair.batches, pair.rows = pair.batches, [], 0
            if self._repository.shadow(pair.served) is not pair.shadow:
                # The versions have changed, and their counts end with them.
                with self._lock:
                    if self._pairs.get(pair.served.name) is pair:
                        del self._pairs[pair.served.name]
                continue
            if skipped:
                self._add(pair, _only(pair, Sums(skipped=skipped)))
            if batches:
                self._add(pair, self._decide(pair, batches))
        ended = time.monotonic()
        self._next = ended + (ended - started) / TIME_SHARE

    def comparison(self, name: str) -> Comparison:
        """How a model's served version and its shadow compare, summed over all workers.

        Raises:
            NotFoundError: there is no such model, or no shadow beside a served version.
            NotReadyError: no version of the model is served.
        """
        served = self._repository.policy(name)
        shadow = self._repository.shadow(served)
        if shadow is None:
            raise NotFoundError(f"no shadow of {name} is loaded: see promote VERSION --shadow")
        pair = _Pair(served, shadow)
        parts = self._metrics.comparisons.all(pair.array_name, pair.size())
        table = Table.from_array(np.sum([np.zeros(pair.size()), *parts], axis=0))
        return report(table, ModelVersion(*served.key), ModelVersion(*shadow.key), served.ranges)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Where shadows differ, in the form that prometheus_client expects."""
        meaning = "Fraction of decisions in this bin for which the shadow prefers another action."
        labels = ["model", "observation", "bin"]
        family = GaugeMetricFamily("policy_shadow_disagreement", meaning, labels=labels)
        for model in self._repository.names():
            with suppress(NotFoundError, NotReadyError):
                for one in self.comparison(model).observations:
                    counts = zip(one.decisions, one.disagreements, strict=True)
                    for index, (decisions, disagreements) in enumerate(counts):
                        if decisions:
                            where = [model, one.name, str(index)]
                            family.add_metric(where, disagreements / decisions)
        yield family

    def _decide(self, pair: _Pair, batches: list[_Batch]) -> Table:
        """The comparison of batches; if that fails, a table that counts only the failure."""
        observations = np.concatenate([batch.observations for batch in batches])
        served = PolicyOutputs._make(
            map(np.concatenate, zip(*(batch.outputs for batch in batches), strict=True))
        )
        rows = len(observations)
        try:
            # Only the most probable actions and the logits are compared, which need no randomness.
            decided = pair.shadow.act(
                observations, np.zeros(rows, np.float32), np.ones(rows, np.bool_)
            )
            return compare(observations, served, decided, pair.served.ranges)
        except Exception:  # an error of the shadow must not affect clients
            if not pair.has_failed:
                which = f"{pair.shadow.name} version {pair.shadow.version}"
                logger.exception("the shadow %s failed; paused for %g s", which, RETRY_SECONDS)
            pair.has_failed = True
            pair.paused_until = time.monotonic() + RETRY_SECONDS
            return _only(pair, Sums(failures=1, skipped=rows))

    def _add(self, pair: _Pair, table: Table) -> None:
        own = self._metrics.comparisons.own(pair.array_name, pair.size())
        own += table.to_array()
        sums = table.sums
        self._metrics.compared(
            pair.served.name,
            decisions=sums.decisions,
            skipped=sums.skipped,
            failures=sums.failures,
            agreements=sums.agreements,
            kl_nats=sums.kl_nats,
            value_difference=sums.absolute_value_difference,
        )


def _only(pair: _Pair, sums: Sums) -> Table:
    zeros = Table.from_array(np.zeros(pair.size()))
    return zeros._replace(sums=sums)
