"""The network in KServe's Python server; `python -m` with a port runs it."""

import sys
from typing import Any

from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.utils.utils import generate_uuid

from tests.conformance.peers.network import INPUTS, NAME, OUTPUTS, Network, described


class CartPole(Model):
    """What KServe leaves to a model: the names of tensors, and the shape of the input."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.network = Network()
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return described(INPUTS)

    def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return described(OUTPUTS)

    async def predict(
        self,
        payload: InferRequest,
        headers: Any = None,  # noqa: ARG002  # KServe passes it
        response_headers: Any = None,  # noqa: ARG002  # KServe passes it
    ) -> InferResponse:
        """Answer one request."""
        tensors: dict[str, InferInput] = {tensor.name: tensor for tensor in payload.inputs}
        if set(tensors) != set(INPUTS):
            raise InvalidInput(f"the inputs are {sorted(tensors)}, not {sorted(INPUTS)}")
        names = [output.name for output in payload.request_outputs or ()]
        try:
            outputs = self.network(tensors["observations"].as_numpy(), names)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        answered = []
        for name, array in outputs.items():
            tensor = InferOutput(name, list(array.shape), OUTPUTS[name].datatype)
            tensor.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            answered.append(tensor)
        return InferResponse(
            payload.id or generate_uuid(),  # its response must have one
            self.name,
            answered,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def main(port: int) -> None:
    """Serve until SIGTERM, on the loopback interface: `ModelServer` has no option for it."""
    models = ModelRepository()
    models.update(CartPole())
    data_plane = DataPlane(models)
    server = RESTServer(
        "kserve.model_server:app", data_plane, ModelRepositoryExtension(data_plane), port
    )
    server.config.host = "127.0.0.1"
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
