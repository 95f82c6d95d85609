"""Prometheus metrics for the operator, summed over the worker processes."""

import math
import os
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.prometheus_adapter import observe
from serving.statistics import SharedArrays, Statistics

_BATCH_ROWS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]
_TINY = np.finfo(np.float32).tiny
_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]


class Metrics:
    """The metrics of one process, made after the fork; `model` is always a model's name.

    If `PROMETHEUS_MULTIPROC_DIR` is set (serving/server/master.py sets it), prometheus_client
    keeps each process's numbers in files there, and `text` sums them.

    Attributes:
        statistics: counts and times of each loaded version, which are not Prometheus metrics.
        comparisons: what `serving/record/shadow.py` found, by model and the two versions.
    """

    def __init__(
        self, statistics: Statistics | None = None, comparisons: SharedArrays | None = None
    ) -> None:
        self.statistics = statistics or Statistics()
        self.comparisons = comparisons or SharedArrays(dtype=np.float64)
        registry = self._registry = CollectorRegistry()
        self._collectors: list[Collector] = []
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        model = ["model"]
        self.worker_starts = counter("policy_worker_starts", "Worker processes that were started.")
        self.shed = counter(
            "policy_http_shed", "Requests rejected with 503 because too many were in flight."
        )
        self.decision_log_lines = counter(
            "policy_decision_log_lines", "Lines written to the decision log."
        )
        self.decision_log_lost = counter(
            "policy_decision_log_lost",
            "Lines too long for the log or too many for the disk, or in a file removed while open.",
        )
        # `cache` makes a labelled metric a function of label values that looks each up once.
        self._requests = cache(
            counter("policy_http_requests", "Requests answered.", ["route", "status"]).labels
        )
        meaning = "Seconds from when a worker begins with a request, or its batch, to its answer."
        self._request_seconds = cache(
            histogram("policy_http_request_seconds", meaning, ["route"], buckets=_SECONDS).labels
        )
        meaning = "Observations in a request."
        self._batch_rows = cache(
            histogram("policy_batch_rows", meaning, model, buckets=_BATCH_ROWS).labels
        )
        self._actions = cache(
            counter("policy_actions", "Actions taken, by name.", ["model", "action"]).labels
        )
        meaning = "Sum of the entropies of the decisions; divide by policy_actions_total."
        self._entropy = cache(counter("policy_entropy_nats", meaning, model).labels)
        meaning = "Mean state value of the latest request."
        self._state_value = cache(
            gauge("policy_state_value", meaning, model, multiprocess_mode="mostrecent").labels
        )
        meaning = "Observations outside what training saw."
        self._out_of_range_rows = cache(counter("policy_out_of_range_rows", meaning, model).labels)
        meaning = (
            "The version that each worker serves, -1 for none, NaN once the model is deleted;"
            " pid is the worker's slot."
        )
        self._served_version = cache(
            gauge("policy_served_version", meaning, model, multiprocess_mode="liveall").labels
        )
        meaning = "The digest of what each worker serves, as a number; 0 for none."
        self._served_digest = cache(
            gauge("policy_served_digest", meaning, model, multiprocess_mode="liveall").labels
        )
        meaning = "Swaps to another version, in each worker."
        self.swaps = cache(counter("policy_swaps", meaning, model).labels)
        meaning = "Versions that were refused, in each worker."
        self.refusals = cache(counter("policy_refusals", meaning, model).labels)
        meanings = {
            "decisions": "Decisions of the served version that its shadow decided about too.",
            "skipped": "Decisions that the shadow left out, as the worker was busy or it failed.",
            "failures": "Calls of the shadow that failed.",
            "agreements": "Decisions for which both prefer the same action.",
            "kl_nats": "Sum of KL(served, shadow); divide by policy_shadow_decisions_total.",
            "value_difference": "Sum of the absolute differences of both state values.",
        }
        self._shadow = {
            name: cache(counter(f"policy_shadow_{name}", meaning, model).labels)
            for name, meaning in meanings.items()
        }

    def add_collector(self, collector: Collector) -> None:
        """Add a collector that computes metrics over all processes at every scrape."""
        self._registry.register(collector)
        self._collectors.append(collector)

    def add_model(self, model: str) -> None:
        """Report no served version yet, and rare counts at 0, so that Prometheus sees them rise."""
        self.serves(model, -1, "0")
        of_shadow = self._shadow.values()
        for counter in (self.swaps, self.refusals, self._out_of_range_rows, *of_shadow):
            counter(model)

    def remove_model(self, model: str) -> None:
        """Report that the model was deleted, so that alerts about it end."""
        # NaN < 0 is false, which ends that alert. Digests are compared by !=: NaN != NaN is true.
        self._served_version(model).set(math.nan)
        self._served_digest(model).set(0)

    def compared(self, model: str, **sums: float) -> None:
        """Count what a shadow did: `sums` has what to add to each of its metrics, by name."""
        for name, value in sums.items():
            self._shadow[name](model).inc(value)

    def serves(self, model: str, version: int, digest: str) -> None:
        """Report the served version, and its digest in hex digits, 48 bits at most."""
        self._served_version(model).set(version)
        self._served_digest(model).set(int(digest, 16))

    def answered_by_worker(self, status: int) -> None:
        """Count a request that never reached the application."""
        self._requests("none", int(status)).inc()

    def answered(self, route: str, status: int, seconds: float, requests: int) -> None:
        """Count requests that were answered together, in so many seconds."""
        self._requests(route, status).inc(requests)
        observe(self._request_seconds(route), seconds, requests)

    def requested(self, model: str, rows: Sequence[int], out_of_range_rows: int) -> None:
        """Count requests by their numbers of `rows`, and the out-of-range rows of all of them."""
        for size in set(rows):
            observe(self._batch_rows(model), size, rows.count(size))
        if out_of_range_rows:
            self._out_of_range_rows(model).inc(out_of_range_rows)

    def decided(
        self,
        model: str,
        action_names: list[str],
        actions: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float32],
        state_values: npt.NDArray[np.float32],
    ) -> None:
        """Count decisions: actions `[B]`, probabilities `[B, A]` and state values `[B]`."""
        taken = np.bincount(actions, minlength=len(action_names)).tolist()
        for name, count in zip(action_names, taken, strict=True):
            if count:
                self._actions(model, name).inc(count)
        surprise = np.log(np.maximum(probabilities, _TINY))  # 0 log 0 is 0
        self._entropy(model).inc(max(0.0, -float(np.vdot(probabilities, surprise))))
        self._state_value(model).set(float(np.add.reduce(state_values)) / len(state_values))

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics of all processes, and their content type.

        It is Prometheus's text format, or OpenMetrics if the header `Accept` prefers that.
        """
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            for collector in self._collectors:
                registry.register(collector)
        try:
            generate, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # `Accept` has a version that is not a number
            generate, content_type = choose_encoder("")
        return generate(registry), content_type
