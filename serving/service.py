"""The decision service: requests of any protocol in, decisions out, counted.

It may be called from several threads at once, and does not look up what is served: every request
holds the policy that answers it.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from serving.metrics import Metrics
from serving.policy.decide import ActResult, DecisionRequest, Results, decide_many
from serving.record.drift import Drift
from serving.record.shadow import Shadows
from serving.statistics import Inferences

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow


class DecisionService:
    """Decides many requests, with one call per policy, and counts them."""

    def __init__(self, max_rows: int, metrics: Metrics, drift: Drift, shadows: Shadows) -> None:
        self._max_rows = max_rows
        self._metrics = metrics
        self._drift = drift
        self._shadows = shadows

    def decide_many(self, requests: Sequence[DecisionRequest]) -> Results:
        """Return a result or an error for each request, in the same order."""
        policies = {request.policy for request in requests}
        if len(policies) > 1:
            results = {
                policy: iter(self.decide_many([one for one in requests if one.policy is policy]))
                for policy in policies
            }
            return [next(results[request.policy]) for request in requests]
        decisions = decide_many(requests, self._max_rows)
        if decisions.outputs is not None:
            policy, outputs = requests[0].policy, decisions.outputs
            self._metrics.decided(
                policy.name,
                policy.card.actions.names,
                outputs.actions,
                outputs.action_probabilities,
                outputs.state_values,
            )
            self._metrics.requested(policy.name, decisions.rows, decisions.out_of_range_rows)
            if decisions.sampled is not None:
                self._drift.add(policy, decisions.sampled)
            self._shadows.offer(requests, decisions.results)
        return decisions.results

    def count(
        self,
        requests: Sequence[DecisionRequest],
        results: Results,
        times: tuple[int, int, int, int],
    ) -> None:
        """Count decided requests, and their time, for the versions that decided.

        Args:
            requests: those that were decided together.
            results: one per request, in the same order.
            times: nanoseconds at which decoding, deciding and encoding began, and the end.
        """
        by_policy: dict[Policy, Results] = {}
        for request, result in zip(requests, results, strict=True):
            by_policy.setdefault(request.policy, []).append(result)
        decode, decide, encode = (after - before for before, after in pairwise(times))
        for policy, own_results in by_policy.items():
            done = [result for result in own_results if isinstance(result, ActResult)]
            failures = len(own_results) - len(done)
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
            self._metrics.statistics.add(*policy.key, inferences)
