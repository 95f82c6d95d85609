"""The policy behind LitServe.

    POLICY_DIR=MODEL_DIR python -m benchmarks.serving_contenders.litserve_app 8000 2 75

The arguments: the port, the number of workers, the seconds that an idle connection is kept.
"""

import sys
from typing import Any

import litserve

from benchmarks.serving_contenders.saved_policy import ActRequest, SavedPolicy


class PolicyAPI(litserve.LitAPI):
    """Decodes, decides and encodes in the inference workers."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names the arguments
        """Load the policy once per worker."""
        self.policy = SavedPolicy()

    def decode_request(self, request: ActRequest) -> ActRequest:
        """The body, which LitServe has validated by the type annotated here."""
        return request

    def predict(self, x: ActRequest) -> dict[str, Any]:
        """Decide about a batch."""
        return self.policy.act(x.observations, x.deterministic, x.seed)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """What becomes JSON."""
        return output


if __name__ == "__main__":
    port, workers, keep_alive = map(int, sys.argv[1:])
    server = litserve.LitServer(
        PolicyAPI(api_path="/act"),
        accelerator="cpu",
        workers_per_device=workers,  # and as many HTTP servers
        fast_queue=True,  # recommended in its documentation for over 100 requests a second
        timeout=300,
    )
    server.run(
        host="127.0.0.1",
        port=port,
        timeout_keep_alive=keep_alive,
        log_level="warning",
        generate_client_file=False,
    )
