"""`infer` of the Open Inference Protocol v2: the one tensor `observations` in, outputs out."""

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from serving.api.body import BodyReader, decode
from serving.api.columns import Columns
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, encode, json_answer
from serving.api.oip import binary
from serving.api.oip.schemas import InferInput, InferRequest, RequestParameters
from serving.api.tensors import DATATYPES, NAMES, Array, numbers_from_bytes, numbers_from_json
from serving.errors import InvalidRequestError, NotFoundError
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.policy.observations import require_shape
from serving.policy.outputs import PolicyOutputs
from serving.registry.repository import Repository

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

_OBSERVATIONS = "observations"
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
        head, raw = binary.split(self._bodies.read(request), request.headers)
        self._bodies.require_few_values(head)
        given = decode(head, _DECODER)
        policy = find(self._repository, name, version)
        parameters = given.parameters or RequestParameters()
        chosen = _chosen(given, parameters)
        numbers = _observations(given.inputs, raw, policy, self._max_rows)
        seed = None if parameters.seed is None else int(parameters.seed)
        sampling = SamplingSpec(seed, parameters.deterministic is True)
        encode_result = partial(_encode, given.id, policy, chosen)
        return DecisionRequest(policy, numbers, sampling), encode_result


def find(repository: Repository, name: str, version: str | None) -> "Policy":
    """The policy that a path names.

    Raises:
        NotFoundError: there is none.
        NotReadyError: no version of the model is served.
    """
    if version is None:
        return repository.policy(name)
    if not (version.isascii() and version.isdecimal()):
        raise NotFoundError(f"versions are whole numbers, and {version!r} is none")
    return repository.policy(name, version=int(version))


def _observations(
    inputs: list[InferInput], raw: memoryview, policy: "Policy", max_rows: int
) -> Array:
    """The one input, `[B, O]`, from its JSON or from the bytes behind that.

    Raises:
        InvalidRequestError: it is missing or wrong, or there is another one.
    """
    if [tensor.name for tensor in inputs] != [_OBSERVATIONS]:
        raise InvalidRequestError(f"inputs: expected exactly one, named {_OBSERVATIONS!r}")
    (tensor,) = inputs
    if tensor.datatype not in DATATYPES:
        raise InvalidRequestError(
            f"inputs[0].datatype: {tensor.datatype!r} is not one of {', '.join(DATATYPES)}"
        )
    names = policy.card.observations.names
    require_shape(tensor.shape, names, max_rows)
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if (size or 0) != len(raw):
        raise InvalidRequestError(
            f"inputs[0]: binary_data_size is {size}, but {len(raw)} bytes follow the JSON"
        )
    numbers: Array
    if size is not None and tensor.data is None:
        numbers = numbers_from_bytes(raw, tensor.datatype, tensor.shape)
    elif size is None and tensor.data is not None:
        numbers = numbers_from_json(tensor.data, tensor.datatype, tensor.shape)
    else:
        raise InvalidRequestError("inputs[0]: expected data, or binary_data_size and no data")
    return numbers


def _chosen(given: InferRequest, parameters: RequestParameters) -> dict[str, bool]:
    """The outputs to answer, and which of them as bytes.

    Raises:
        InvalidRequestError: one is unknown or comes twice.
    """
    as_bytes = parameters.binary_data_output is True
    if not given.outputs:
        return dict.fromkeys(PolicyOutputs._fields, as_bytes)
    chosen: dict[str, bool] = {}
    for output in given.outputs:
        if output.name not in PolicyOutputs._fields or output.name in chosen:
            problem = "asked for twice" if output.name in chosen else "unknown"
            names = ", ".join(PolicyOutputs._fields)
            raise InvalidRequestError(f"outputs: {output.name!r} is {problem}; there are {names}")
        own = None if output.parameters is None else output.parameters.binary_data
        chosen[output.name] = as_bytes if own is None else own
    return chosen


def _encode(
    request_id: str | None,
    policy: "Policy",
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
    parameters: dict[str, Any] = {"seed": result.seed}
    if result.warnings:
        # A parameter is a string, a number or a boolean.
        parameters["warnings"] = "\n".join(result.warnings)
    answer: dict[str, Any] = {"model_name": policy.name, "model_version": str(policy.version)}
    if request_id is not None:
        answer["id"] = request_id
    answer |= {"parameters": parameters, "outputs": outputs}
    return binary.join(encode(answer), tensors) if tensors else json_answer(answer)
