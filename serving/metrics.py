"""What an operator sees: Prometheus metrics, summed over the worker processes."""

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from serving.prometheus_adapter import observe

_BATCH_ROWS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]
_TINY = np.finfo(np.float32).tiny
_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]


class _Model(NamedTuple):
    batch_rows: Histogram
    entropy: Counter
    state_value: Gauge
    action: Callable[[str], Counter]


class Metrics:
    """The metrics of one process, made after the fork. `model` is a model's name in all.

    Where `PROMETHEUS_MULTIPROC_DIR` is set, as `serving/server/master.py` does, prometheus_client
    keeps each process's numbers in files there, and `text` sums them.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.worker_starts = Counter(
            "policy_worker_starts", "Worker processes that were started.", registry=registry
        )
        self.requests = Counter(
            "policy_http_requests",
            "Requests answered.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "policy_http_request_seconds",
            "Seconds from the parsed request head to the answer's last byte made.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            "policy_http_shed",
            "Requests rejected with 503 because too many were in flight.",
            registry=registry,
        )
        self.batch_rows = Histogram(
            "policy_batch_rows",
            "Observations in a request.",
            ["model"],
            buckets=_BATCH_ROWS,
            registry=registry,
        )
        self.actions = Counter(
            "policy_actions", "Actions taken, by name.", ["model", "action"], registry=registry
        )
        self.entropy = Counter(
            "policy_entropy_nats",
            "Sum of the entropies of the decisions; divide by policy_actions_total.",
            ["model"],
            registry=registry,
        )
        self.state_value = Gauge(
            "policy_state_value",
            "Mean state value of the latest request.",
            ["model"],
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self.out_of_range_rows = Counter(
            "policy_out_of_range_rows",
            "Observations outside what training saw.",
            ["model"],
            registry=registry,
        )
        self.served_version = Gauge(
            "policy_served_version",
            "The version that each worker serves, -1 for none; pid is the worker's slot.",
            ["model"],
            multiprocess_mode="liveall",
            registry=registry,
        )
        self.swaps = Counter(
            "policy_swaps",
            "Swaps to another version, in each worker.",
            ["model"],
            registry=registry,
        )
        self.refusals = Counter(
            "policy_refusals",
            "Versions that were refused, in each worker.",
            ["model"],
            registry=registry,
        )

    def add_model(self, model: str) -> None:
        """Begin with none served, and rare counts at 0: Prometheus sees no count's first value."""
        self.served_version.labels(model).set(-1)
        for counter in (self.swaps, self.refusals, self.out_of_range_rows):
            counter.labels(model)

    @cache  # noqa: B019 (there is one for each process, and it lives as long)
    def _of(self, model: str) -> "_Model":
        """The metrics of one model, looked up once."""
        return _Model(
            batch_rows=self.batch_rows.labels(model),
            entropy=self.entropy.labels(model),
            state_value=self.state_value.labels(model),
            action=cache(partial(self.actions.labels, model)),
        )

    @cache  # noqa: B019 (there is one for each process, and it lives as long)
    def _of_route(self, route: str, status: int) -> tuple[Counter, Histogram]:
        """Requests answered so, and their seconds, looked up once."""
        return self.requests.labels(route, status), self.request_seconds.labels(route)

    def answered_by_worker(self, status: int) -> None:
        """Count a request that never reached the application."""
        self.requests.labels("none", int(status)).inc()

    def answered(self, route: str, status: int, seconds: float, requests: int = 1) -> None:
        """Count requests that were answered together and in that time."""
        count, request_seconds = self._of_route(route, status)
        count.inc(requests)
        observe(request_seconds, seconds, requests)

    def requested(self, model: str, rows: Sequence[int], out_of_range_rows: int) -> None:
        """Count the observations of one or more requests.

        Args:
            model: the name of the model that decided.
            rows: of each request.
            out_of_range_rows: of all requests together.
        """
        for size in set(rows):
            observe(self._of(model).batch_rows, size, rows.count(size))
        if out_of_range_rows:
            self.out_of_range_rows.labels(model).inc(out_of_range_rows)

    def decided(
        self,
        model: str,
        action_names: list[str],
        actions: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float32],
        state_values: npt.NDArray[np.float32],
    ) -> None:
        """Count decisions: actions `[B]`, probabilities `[B, A]` and state values `[B]`."""
        children = self._of(model)
        taken = np.bincount(actions, minlength=len(action_names)).tolist()
        for name, count in zip(action_names, taken, strict=True):
            if count:
                children.action(name).inc(count)
        surprise = np.log(np.maximum(probabilities, _TINY))  # 0 log 0 is 0
        children.entropy.inc(max(0.0, -float(np.vdot(probabilities, surprise))))
        children.state_value.set(float(np.add.reduce(state_values)) / len(state_values))

    def text(self) -> bytes:
        """All metrics of all processes, in Prometheus's text format."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
