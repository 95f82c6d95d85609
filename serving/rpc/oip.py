"""`inference.GRPCInferenceService`: the Open Inference Protocol v2, with Triton's repository."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import msgspec
from tritonclient.grpc import service_pb2

from serving.api.batch import Decoding
from serving.api.body import describe
from serving.api.keys import Key
from serving.api.messages import episode_id
from serving.api.oip.inference import Inference, answer_parameters
from serving.api.oip.models import InferenceModels
from serving.api.oip.schemas import InferInput, InferRequest
from serving.api.tensors import NAMES, Array, numbers_from_bytes, numbers_from_json
from serving.errors import InvalidRequestError, NotReadyError
from serving.policy.columns import Columns
from serving.policy.decide import ActResult
from serving.policy.savedmodel import Policy
from serving.rpc.calls import Method, parse

SERVICE = "inference.GRPCInferenceService"
# The field of `InferTensorContents` for each datatype; FP16 has none.
_FIELDS = {
    **dict.fromkeys(["INT8", "INT16", "INT32"], "int_contents"),
    **dict.fromkeys(["UINT8", "UINT16", "UINT32"], "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_PUBLIC = {"ServerLive", "ServerReady"}  # methods that need no key
_OPERATED = {"RepositoryModelLoad", "RepositoryModelUnload"}  # methods that change what is served


class ModelInfer:
    """The method that decides."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def decode(self, message: bytes, metadata: Mapping[str, str]) -> Decoding[bytes]:
        """Decode a `ModelInferRequest`; the answer's contents are typed or raw like the request's.

        Raises:
            ProblemError: a part of it is wrong, or no such policy is served.
        """
        request = parse(service_pb2.ModelInferRequest, message)
        try:
            given = msgspec.convert(_without_numbers(request), InferRequest)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(describe(str(error))) from error
        decision, chosen = self._inference.decision(
            given,
            request.model_name,
            request.model_version or None,
            episode_id(metadata),
            partial(_numbers, request),
        )
        is_raw = bool(request.raw_input_contents)
        return decision, partial(_encode, request.id, decision.policy, list(chosen), is_raw)


def _without_numbers(request: Any) -> dict[str, Any]:
    """A request, with the names that it has in JSON and without the numbers."""
    return {
        "id": request.id,
        "parameters": _parameters(request.parameters),
        "inputs": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
                "parameters": _parameters(tensor.parameters),
            }
            for tensor in request.inputs
        ],
        "outputs": [
            {"name": output.name, "parameters": _parameters(output.parameters)}
            for output in request.outputs
        ],
    }


def _parameters(parameters: Any) -> dict[str, Any] | None:
    if not parameters:
        return None
    kinds = {name: one.WhichOneof("parameter_choice") for name, one in parameters.items()}
    return {
        name: None if kind is None else getattr(parameters[name], kind)
        for name, kind in kinds.items()
    }


def _numbers(request: Any, tensor: InferInput) -> Array:
    """The numbers of the only input."""
    contents = request.inputs[0].contents
    given = [field.name for field, _ in contents.ListFields()]
    if request.raw_input_contents:
        if given or len(request.raw_input_contents) != 1:
            raise InvalidRequestError("inputs[0]: expected contents, or one in raw_input_contents")
        raw = memoryview(request.raw_input_contents[0])
        return numbers_from_bytes(raw, tensor.datatype, tensor.shape)
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidRequestError(f"inputs[0]: {tensor.datatype} is only in raw_input_contents")
    if given != [field]:
        raise InvalidRequestError(f"inputs[0].contents: {tensor.datatype} is in {field} only")
    return numbers_from_json(list(getattr(contents, field)), tensor.datatype, tensor.shape)


def _encode(
    own_id: str, policy: Policy, chosen: list[str], is_raw: bool, result: ActResult, _: Columns
) -> bytes:
    arrays = [getattr(result.batch, name)[result.start : result.stop] for name in chosen]
    shapes = tuple(array.shape for array in arrays)
    datatypes = tuple(NAMES[array.dtype] for array in arrays)
    answer = service_pb2.ModelInferResponse(id=own_id)
    for name, value in answer_parameters(policy, result).items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(answer.parameters[name], kind, value)
    described = _described(policy.name, policy.version, tuple(chosen), datatypes, shapes)
    if is_raw:
        answer.raw_output_contents.extend([array.tobytes() for array in arrays])
    else:
        head = service_pb2.ModelInferResponse.FromString(described)
        for output, array in zip(head.outputs, arrays, strict=True):
            contents = getattr(output.contents, _FIELDS[output.datatype])
            contents.extend(array.ravel().tolist())
        described = head.SerializeToString()
    rest: bytes = answer.SerializeToString()
    return described + rest


@lru_cache(maxsize=256)
def _described(
    name: str,
    version: int,
    names: tuple[str, ...],
    datatypes: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> bytes:
    """The part that a model's answers with the same number of rows have in common.

    Concatenated serialized messages are one message, with the fields of all:
    https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    answer = service_pb2.ModelInferResponse(model_name=name, model_version=str(version))
    for output, datatype, shape in zip(names, datatypes, shapes, strict=True):
        answer.outputs.add(name=output, datatype=datatype, shape=shape)
    serialized: bytes = answer.SerializeToString()
    return serialized


def other_methods(models: InferenceModels, is_ready: Callable[[], bool]) -> dict[str, Method]:
    """The methods that decide nothing, by name; `is_ready` is about the service."""

    def model_ready(request: Any, _key: Key | None) -> dict[str, Any]:
        try:
            models.model_ready(request.name, request.version or None)
        except NotReadyError:
            return {"ready": False}
        return {"ready": True}

    def statistics(request: Any, _key: Key | None) -> Any:
        if not request.name:
            return models.all_statistics()
        return models.statistics(request.name, request.version or None)

    def load(request: Any, key: Key | None) -> dict[str, Any]:
        models.load(request.model_name, dict(request.parameters), key)
        return {}

    def unload(request: Any, key: Key | None) -> dict[str, Any]:
        models.unload(request.model_name, key)
        return {}

    answers: dict[str, Callable[[Any, Key | None], Any]] = {
        "ServerLive": lambda *_: {"live": True},
        "ServerReady": lambda *_: {"ready": is_ready()},
        "ModelReady": model_ready,
        "ServerMetadata": lambda *_: models.server(),
        "ModelMetadata": lambda request, _: models.model(request.name, request.version or None),
        "ModelConfig": lambda request, _: {
            "config": models.config(request.name, request.version or None)
        },
        "ModelStatistics": statistics,
        "RepositoryIndex": lambda request, _: {"models": models.index(only_ready=request.ready)},
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": unload,
    }
    # The protocol names its messages by their methods.
    return {
        name: Method(
            getattr(service_pb2, f"{name}Request"),
            getattr(service_pb2, f"{name}Response"),
            answer,
            is_public=name in _PUBLIC,
            operates=name in _OPERATED,
        )
        for name, answer in answers.items()
    }
