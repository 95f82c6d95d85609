"""The policy behind BentoML.

POLICY_DIR=MODEL_DIR WORKERS=2 bentoml serve benchmarks.serving_contenders.bentoml_app:Policy
"""

import os

import bentoml

from benchmarks.serving_contenders.saved_policy import ActResponse, Row, SavedPolicy


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    traffic={"timeout": 300},
    logging={"access": {"enabled": False}},
)
class Policy:
    """Loads the policy once per worker."""

    def __init__(self) -> None:
        self.policy = SavedPolicy()

    @bentoml.api(route="/act")
    def act(
        self, observations: list[Row], deterministic: bool = False, seed: int | None = None
    ) -> ActResponse:
        """Decide about a batch."""
        return ActResponse(**self.policy.act(observations, deterministic, seed))
