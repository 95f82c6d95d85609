"""The decision service: requests of any protocol in, decisions out, counted.

It may be called from several threads at once, and takes what is served as data: every request
holds the policy that answers it.
"""

from collections.abc import Sequence

from serving.policy.decide import DecisionRequest, Results, decide_many
from serving.record.shadow import Shadows
from serving.tally import Tally


class DecisionService:
    """Decides for many requests, those of one policy in one call, and counts them."""

    def __init__(self, max_rows: int, tally: Tally, shadows: Shadows) -> None:
        self._max_rows = max_rows
        self._tally = tally
        self._shadows = shadows

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
            self._tally.decided(requests[0].policy, decisions)
            self._shadows.offer(requests, decisions.results)
        return decisions.results
