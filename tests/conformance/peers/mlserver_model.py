"""The network in MLServer; `python -m` with a port runs it."""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

from tests.conformance.peers.network import INPUTS, NAME, OUTPUTS, VERSION, Network, described


class CartPole(MLModel):
    """What MLServer leaves to a model: the names of tensors, and the shape of the input."""

    async def load(self) -> bool:
        """Called once, before the model is ready."""
        self.network = Network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request; MLServer returns the id."""
        tensors = {tensor.name: tensor for tensor in payload.inputs}
        if set(tensors) != set(INPUTS):
            raise InferenceError(f"the inputs are {sorted(tensors)}, not {sorted(INPUTS)}")
        names = [output.name for output in payload.outputs or ()]
        try:
            observations = NumpyCodec.decode_input(tensors["observations"])
            outputs = self.network(observations, names)
        except ValueError as error:
            raise InferenceError(str(error)) from error
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                # MLServer's codec makes [rows, 1] of [rows].
                NumpyCodec.encode_output(name, array).model_copy(
                    update={"shape": list(array.shape)}
                )
                for name, array in outputs.items()
            ],
        )


async def main(port: int) -> None:
    """Serve until SIGTERM, without gRPC's and the metrics' fixed ports."""
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=0,
    )
    model = ModelSettings(
        name=NAME,
        implementation="tests.conformance.peers.mlserver_model.CartPole",
        versions=[VERSION],
        inputs=described(INPUTS),
        outputs=described(OUTPUTS),
        parameters={"version": VERSION},
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
