"""The network in Triton's Python backend, which checks requests by the config beside it."""

import os
import sys
from typing import Any

# The backend's interpreter is isolated, so it does not read the variable itself.
sys.path += os.environ["PYTHONPATH"].split(os.pathsep)

import triton_python_backend_utils as triton

from tests.conformance.peers.network import Network


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002  # Triton passes it
        """Called once, when the model is loaded."""
        self.network = Network()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request; the backend sends the outputs that were asked for."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        observations = triton.get_input_tensor_by_name(request, "observations").as_numpy()
        # The backend reads the arrays after this call: they must live until the next one.
        self.outputs = self.network(observations)
        return triton.InferenceResponse(
            [triton.Tensor(name, array) for name, array in self.outputs.items()]
        )
