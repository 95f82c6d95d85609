"""The decision service: requests of any protocol in, decisions out, counted.

It may be called from several threads at once, and takes what is served as data: every request
holds the policy that answers it.
"""

from collections.abc import Sequence

from serving.metrics import Metrics
from serving.policy.decide import DecisionRequest, Results, decide_many


class DecisionService:
    """Decides for many requests, those of one policy in one call, and counts them."""

    def __init__(self, max_rows: int, metrics: Metrics) -> None:
        self._max_rows = max_rows
        self._metrics = metrics

    def decide_many(self, requests: Sequence[DecisionRequest]) -> Results:
        """Decide; each request gets its result or its error, in their order."""
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
        return decisions.results
