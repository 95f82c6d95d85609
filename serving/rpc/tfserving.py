"""TensorFlow Serving's `PredictionService` and `ModelService`.

Errors are those of its `predict_util.cc` and `get_model_metadata_impl.cc`.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict, ParseDict
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
)

from serving.api.batch import Decoding
from serving.api.keys import Key
from serving.api.messages import episode_id
from serving.api.tensors import MAX_RANK, Array
from serving.api.tfserving.models import ServingModels
from serving.api.tfserving.prediction import decision, find
from serving.errors import ConflictError, InvalidRequestError
from serving.policy.columns import Columns
from serving.policy.decide import ActResult
from serving.policy.observations import require_shape
from serving.policy.savedmodel import Policy
from serving.registry.repository import Repository
from serving.rpc.calls import Method, parse

PREDICTION_SERVICE: str = prediction_service_pb2.DESCRIPTOR.services_by_name[
    "PredictionService"
].full_name
MODEL_SERVICE: str = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
# How often a tensor's last value may be repeated: a short message must not be a large request.
_MAX_REPEATED = 4096
# `DataType` of TensorFlow: its number, the field of `TensorProto`, and NumPy's type.
_DTYPES: dict[str, tuple[int, str, type[np.generic]]] = {
    "DT_FLOAT": (1, "float_val", np.float32),
    "DT_INT64": (9, "int64_val", np.int64),
    "DT_BOOL": (10, "bool_val", np.bool_),
}


class Predict:
    """The method that decides."""

    def __init__(self, repository: Repository, max_rows: int) -> None:
        self._repository = repository
        self._max_rows = max_rows

    def decode(self, message: bytes, metadata: Mapping[str, str]) -> Decoding[bytes]:
        """Decode a `PredictRequest` of either signature.

        Raises:
            ProblemError: in TensorFlow Serving's words and order.
        """
        request = parse(predict_pb2.PredictRequest, message)
        name, version, label = _model(request)
        episode = episode_id(metadata)
        choice = find(self._repository, name, version, label, episode)
        called = request.model_spec.signature_name or "serving_default"
        signature = choice.policy.signatures.get(called)
        if signature is None:
            raise ConflictError(f'Serving signature key "{called}" not found.')
        inputs = self._inputs(request.inputs, signature["inputs"], choice.policy)
        chosen = _chosen(request.output_filter, signature["outputs"])
        encode = partial(_encode, choice.policy, called, chosen)
        return decision(choice, inputs, episode, self._max_rows), encode

    def _inputs(
        self, given: Mapping[str, Any], expected: dict[str, Any], policy: Policy
    ) -> dict[str, Array]:
        if len(given) != len(expected):
            raise InvalidRequestError(
                f"input size does not match signature: {len(given)}!={len(expected)} "
                f"len({_names(given)}) != len({_names(expected)}). "
                f"Sent extra: {_names(given.keys() - expected.keys())}. "
                f"Missing but required: {_names(expected.keys() - given.keys())}."
            )
        for name in given:
            if name not in expected:
                raise InvalidRequestError(
                    f"input tensor alias not found in signature: {name}. "
                    f"Inputs expected to be in the set {_names(expected)}."
                )
        names = policy.card.observations.names
        require_shape(_shape("observations", given["observations"]), names, self._max_rows)
        most = self._max_rows * len(names)
        return {
            name: _array(name, tensor, expected[name]["dtype"], most)
            for name, tensor in given.items()
        }


def _model(request: Any) -> tuple[str, int | None, str | None]:
    """The name, the version and the label of a request's model."""
    spec = request.model_spec
    if not spec.name:
        raise InvalidRequestError("Missing ModelSpec")
    kind = spec.WhichOneof("version_choice")
    version = spec.version.value if kind == "version" else None
    return spec.name, version, spec.version_label if kind == "version_label" else None


def _names(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _shape(name: str, tensor: Any) -> list[int]:
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise InvalidRequestError(f"tensor parsing error: {name}")
    return shape


def _array(name: str, tensor: Any, dtype: str, most: int) -> Array:
    """The numbers of a `TensorProto`; the last one, or 0, repeats to fill the shape."""
    number, field, kind = _DTYPES[dtype]
    if tensor.dtype != number:
        raise InvalidRequestError(f"{name}: the data type is {tensor.dtype}, expected {dtype}")
    shape = _shape(name, tensor)
    size = math.prod(shape)
    values = getattr(tensor, field)
    if len(shape) > MAX_RANK or size > most or len(values) > size:
        raise InvalidRequestError(f"tensor parsing error: {name}")
    if not tensor.tensor_content:
        if size - len(values) > _MAX_REPEATED:
            raise InvalidRequestError(
                f"{name}: the last value may be repeated {_MAX_REPEATED} times at most"
            )
        array: Array = np.array(values or [0], kind)[:size]
        padded: Array = np.pad(array, (0, size - len(array)), "edge")
        return padded.reshape(shape)
    if len(tensor.tensor_content) != size * np.dtype(kind).itemsize:
        raise InvalidRequestError(f"tensor parsing error: {name}")
    if kind is np.bool_:  # any byte but 0 is true
        return np.frombuffer(tensor.tensor_content, np.uint8).astype(kind).reshape(shape)
    return np.frombuffer(tensor.tensor_content, kind).reshape(shape)


def _chosen(output_filter: Any, outputs: dict[str, Any]) -> list[str]:
    """The outputs to send; all if none is named."""
    chosen: list[str] = []
    for name in output_filter:
        if name not in outputs:
            raise InvalidRequestError(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_names(outputs)}."
            )
        if name in chosen:
            raise InvalidRequestError(f"duplicate output tensor alias: {name}")
        chosen.append(name)
    return chosen or sorted(outputs)


def _encode(
    policy: Policy, signature: str, chosen: list[str], result: ActResult, _: Columns
) -> bytes:
    answer = predict_pb2.PredictResponse()
    answer.model_spec.name = policy.name
    answer.model_spec.version.value = policy.version
    answer.model_spec.signature_name = signature
    for name in chosen:
        array = getattr(result.batch, name)[result.start : result.stop]
        number, field, _kind = _DTYPES["DT_INT64" if array.dtype == np.int64 else "DT_FLOAT"]
        tensor = answer.outputs[name]
        tensor.dtype = number
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        # As typed fields, like TensorFlow Serving's default: some clients read nothing else.
        getattr(tensor, field).extend(array.ravel().tolist())
    serialized: bytes = answer.SerializeToString()
    return serialized


def prediction_methods(models: ServingModels) -> dict[str, Method]:
    """The methods of `PredictionService` that decide nothing, by name."""

    def metadata(request: Any, _key: Key | None) -> Any:
        name, version, label = _model(request)
        if not request.metadata_field:
            raise InvalidRequestError("GetModelMetadataRequest must specify at least one field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise InvalidRequestError(f"Metadata field {field} is not supported")
        content = models.metadata(name, version, label)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        ParseDict(content["metadata"]["signature_def"], signatures)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(signatures)
        return MessageToDict(answer) | {"model_spec": content["model_spec"]}

    return {
        "GetModelMetadata": Method(
            get_model_metadata_pb2.GetModelMetadataRequest,
            get_model_metadata_pb2.GetModelMetadataResponse,
            metadata,
        )
    }


def model_methods(models: ServingModels) -> dict[str, Method]:
    """The methods of `ModelService`, by name."""

    def status(request: Any, _key: Key | None) -> Any:
        name, version, _label = _model(request)
        return models.status(name, version)

    return {
        "GetModelStatus": Method(
            get_model_status_pb2.GetModelStatusRequest,
            get_model_status_pb2.GetModelStatusResponse,
            status,
        )
    }
