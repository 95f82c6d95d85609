"""The decision service: requests of any protocol in, decisions out, counted.

It may be called from several threads at once, and takes what is served as data: every request
holds the policy that answers it.
"""

from collections.abc import Sequence

from serving.errors import InvalidRequestError
from serving.metrics import Metrics
from serving.policy.decide import ActResult, DecisionRequest, decide_many


class DecisionService:
    """Decides for many requests, those of one policy in one call, and counts them."""

    def __init__(self, max_rows: int, metrics: Metrics) -> None:
        self._max_rows = max_rows
        self._metrics = metrics

    def decide_many(
        self, requests: Sequence[DecisionRequest]
    ) -> list[ActResult | InvalidRequestError]:
        """Decide; each request gets its result or its error, in their order."""
        by_policy: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            by_policy.setdefault(id(request.policy), []).append(index)
        results: dict[int, ActResult | InvalidRequestError] = {}
        for indices in by_policy.values():
            policy = requests[indices[0]].policy
            decisions = decide_many([requests[index] for index in indices], self._max_rows)
            results.update(zip(indices, decisions.results, strict=True))
            if decisions.outputs is not None:
                outputs = decisions.outputs
                self._metrics.decided(
                    policy.name,
                    policy.card.actions.names,
                    outputs.actions,
                    outputs.action_probabilities,
                    outputs.state_values,
                )
                self._metrics.requested(policy.name, decisions.rows, decisions.out_of_range_rows)
        return [results[index] for index in range(len(requests))]
