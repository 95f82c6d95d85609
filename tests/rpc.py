"""A service with gRPC, and what asks it: packages of clients as they are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tritonclient.grpc import service_pb2

from tests.conftest import Service, running_service, wait_until
from tests.test_act import ROW

Array = npt.NDArray[Any]
INFER = "/inference.GRPCInferenceService/ModelInfer"
ROWS = np.array([ROW, [0.1, -0.2, 0.03, 0.4]], np.float32)
# A channel of its own connection: gRPC shares connections between equal channels otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class RpcService(NamedTuple):
    http: Service
    address: str


@contextmanager
def running_rpc(models: Path, log: Path, *options: str, workers: int = 2) -> Iterator[RpcService]:
    """Run a real service with gRPC on a free port, all of whose workers are ready."""
    arguments = ("--grpc-port", "0", "--workers", str(workers), *options)
    with running_service(models, log, *arguments) as service:
        wait_until(lambda: log.read_text().count("serving cartpole version") >= workers)
        wait_until(lambda: log.read_text().count("gRPC listens on") >= workers)
        (address,) = set(re.findall(r"gRPC listens on ([0-9.:]+)", log.read_text()))
        yield RpcService(service, address)


def infer_input(rows: Array, datatype: str = "FP32") -> Any:
    tensor = tritonclient.grpc.InferInput("observations", list(rows.shape), datatype)
    return tensor.set_data_from_numpy(rows)


def prediction_stub(channel: grpc.Channel) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(signature: str = "", **inputs: Any) -> Any:
    import tensorflow as tf

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "cartpole"
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.asarray(values)))
    return request


def arrays_of(response: Any) -> dict[str, Array]:
    import tensorflow as tf

    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


def typed_request(rows: Array, **parameters: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="cartpole")
    tensor = request.inputs.add(name="observations", datatype="FP32", shape=rows.shape)
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    for name, value in parameters.items():
        kind = "bool_param" if isinstance(value, bool) else "int64_param"
        setattr(request.parameters[name], kind, value)
    return request


def infer(channel: grpc.Channel, request: Any, **options: Any) -> Any:
    method = channel.unary_unary(
        INFER,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return method(request, timeout=30, **options)
