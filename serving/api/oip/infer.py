"""`infer` of the Open Inference Protocol v2, with Triton's extension: raw tensors behind JSON."""

import re
from functools import partial
from typing import Any

import msgspec
import orjson

from serving.api.body import BodyReader, decode
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, episode_id, json_answer
from serving.api.oip.schemas import (
    InferInput,
    InferRequest,
    InputParameters,
    OutputParameters,
    RequestParameters,
    SharedMemory,
)
from serving.api.tensors import DATATYPES, NAMES, Array, numbers_from_bytes, numbers_from_json
from serving.errors import InvalidRequestError, NotFoundError
from serving.policy.artefact import version_number
from serving.policy.columns import Columns, encode
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.policy.observations import require_shape
from serving.policy.outputs import PolicyOutputs
from serving.policy.savedmodel import Policy
from serving.registry.assignment import Choice
from serving.registry.repository import Repository

_LENGTH_OF_JSON = "Inference-Header-Content-Length"
_DECODER = msgspec.json.Decoder(InferRequest)


class InferProtocol:
    """`POST /v2/models/<name>/infer`, of the served version or of one that is named."""

    rules = ("/v2/models/<name>/infer", "/v2/models/<name>/versions/<version>/infer")

    def __init__(self, repository: Repository, bodies: BodyReader, max_rows: int) -> None:
        self._repository = repository
        self._bodies = bodies
        self._max_rows = max_rows

    def decode(self, request: Request, name: str, version: str | None = None) -> Decoded:
        """Decode the JSON and the raw tensor behind it, if there is one.

        Raises:
            ProblemError: a part of it is wrong, or no such policy is served.
        """
        body = self._bodies.read(request)
        head, raw = _split(body, request.headers.get(_LENGTH_OF_JSON.lower()))
        self._bodies.require_few_values(head)
        given = decode(head, _DECODER)
        episode = episode_id(request)
        policy, selection = find(self._repository, name, version, episode)
        parameters = given.parameters or RequestParameters()
        chosen = _chosen(given, parameters)
        numbers = _input(given.inputs, raw, policy, self._max_rows)
        seed = None if parameters.seed is None else int(parameters.seed)
        sampling = SamplingSpec(seed, parameters.deterministic is True)
        encode_result = partial(_encode, given.id, policy, chosen)
        decision = DecisionRequest(policy, numbers, sampling, episode, selection=selection)
        return decision, encode_result


def find(
    repository: Repository, name: str, version: str | None, episode: str | None = None
) -> Choice:
    """The policy that a path names, or else the one for an episode.

    Raises:
        NotFoundError, NotReadyError: there is none, or no version of the model is served.
    """
    if version is None:
        return repository.choose(name, episode=episode)
    number = version_number(version)
    if number is None:
        raise NotFoundError(f"versions are whole numbers, and {version!r} is none")
    return repository.choose(name, version=number)


def _split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, of that length in bytes, and what follows it, which is not copied."""
    if length is None:
        return body, memoryview(b"")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > len(body):
        raise InvalidRequestError(
            f"{_LENGTH_OF_JSON}: {length!r} is not a length in a body of {len(body)}"
        )
    return body[: int(length)], memoryview(body)[int(length) :]


def _input(inputs: list[InferInput], raw: memoryview, policy: Policy, max_rows: int) -> Array:
    """The one input, `[B, O]`, from its JSON or from the bytes behind that."""
    if [tensor.name for tensor in inputs] != ["observations"]:
        raise InvalidRequestError("inputs: expected exactly one, named 'observations'")
    (tensor,) = inputs
    if tensor.datatype not in DATATYPES:
        raise InvalidRequestError(
            f"inputs[0].datatype: {tensor.datatype!r} is not one of {', '.join(DATATYPES)}"
        )
    require_shape(tensor.shape, policy.card.observations.names, max_rows)
    parameters = tensor.parameters or InputParameters()
    _require_no_shared_memory("inputs[0]", parameters)
    size = parameters.binary_data_size
    if (size or 0) != len(raw):
        raise InvalidRequestError(
            f"inputs[0]: binary_data_size is {size}, but {len(raw)} bytes follow the JSON"
        )
    if size is not None and tensor.data is None:
        return numbers_from_bytes(raw, tensor.datatype, tensor.shape)
    if size is None and tensor.data is not None:
        return numbers_from_json(tensor.data, tensor.datatype, tensor.shape)
    raise InvalidRequestError("inputs[0]: expected data, or binary_data_size and no data")


def _chosen(given: InferRequest, parameters: RequestParameters) -> dict[str, bool]:
    """The names of the outputs to answer, and whether as bytes."""
    names = PolicyOutputs._fields
    as_bytes = parameters.binary_data_output is True
    if not given.outputs:
        return dict.fromkeys(names, as_bytes)
    chosen: dict[str, bool] = {}
    for output in given.outputs:
        if output.name not in names or output.name in chosen:
            problem = "asked for twice" if output.name in chosen else "unknown"
            raise InvalidRequestError(
                f"outputs: {output.name!r} is {problem}; there are {', '.join(names)}"
            )
        of_output = output.parameters or OutputParameters()
        _require_no_shared_memory(f"outputs: {output.name!r}", of_output)
        if of_output.classification is not None:
            raise InvalidRequestError(f"outputs: {output.name!r}: classification is not supported")
        own = of_output.binary_data
        chosen[output.name] = as_bytes if own is None else own
    return chosen


def _require_no_shared_memory(what: str, parameters: SharedMemory) -> None:
    if parameters.shared_memory_region is not None:
        raise InvalidRequestError(f"{what}: shared memory is not supported")


def _encode(
    request_id: str | None,
    policy: Policy,
    chosen: dict[str, bool],
    result: ActResult,
    columns: Columns,
) -> Answer:
    outputs, tensors = [], []
    for name, as_bytes in chosen.items():
        array = getattr(result.batch, name)[result.start : result.stop]
        described = {"name": name, "datatype": NAMES[array.dtype], "shape": array.shape}
        if as_bytes:
            tensors.append(array.data)
            outputs.append(described | {"parameters": {"binary_data_size": array.nbytes}})
        else:
            data = orjson.Fragment(b"[%b]" % columns.numbers(name, result))
            outputs.append(described | {"data": data})
    parameters: dict[str, Any] = {"seed": result.seed, "digest": policy.digest}
    if result.warnings:
        # A parameter is a string, a number or a boolean.
        parameters["warnings"] = "\n".join(result.warnings)
    answer: dict[str, Any] = {"model_name": policy.name, "model_version": str(policy.version)}
    if request_id is not None:
        answer["id"] = request_id
    answer |= {"parameters": parameters, "outputs": outputs}
    if not tensors:
        return json_answer(answer)
    head = encode(answer)
    headers = ((_LENGTH_OF_JSON, str(len(head))),)
    return Answer(200, b"".join([head, *tensors]), "application/octet-stream", headers)
