"""`infer` of the Open Inference Protocol v2, with Triton's extension: raw tensors after JSON."""

import re
from functools import partial
from typing import Any

import msgspec
import orjson

from serving.api.body import BodyReader, decode
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, episode_id, json_answer
from serving.api.oip.inference import Inference, answer_parameters
from serving.api.oip.schemas import InferInput, InferRequest, InputParameters
from serving.api.tensors import NAMES, Array, numbers_from_bytes, numbers_from_json
from serving.errors import InvalidRequestError
from serving.policy.columns import Columns, encode
from serving.policy.decide import ActResult
from serving.policy.savedmodel import Policy
from serving.registry.repository import Repository

_LENGTH_OF_JSON = "Inference-Header-Content-Length"
_DECODER = msgspec.json.Decoder(InferRequest)


class InferProtocol:
    """`POST /v2/models/<name>/infer`, for the served version or a named version."""

    rules = ("/v2/models/<name>/infer", "/v2/models/<name>/versions/<version>/infer")

    def __init__(self, repository: Repository, bodies: BodyReader, max_rows: int) -> None:
        self._inference = Inference(repository, max_rows)
        self._bodies = bodies

    def decode(self, request: Request, name: str, version: str | None = None) -> Decoded:
        """Decode the JSON and the raw tensor after it, if there is one.

        Raises:
            ProblemError: a part of it is wrong, or no such policy is served.
        """
        body = self._bodies.read(request)
        head, raw = _split(body, request.headers.get(_LENGTH_OF_JSON.lower()))
        self._bodies.require_few_values(head)
        given = decode(head, _DECODER)
        episode = episode_id(request.headers)
        decision, chosen = self._inference.decision(
            given, name, version, episode, partial(_numbers, raw)
        )
        return decision, partial(_encode, given.id, decision.policy, chosen)


def _numbers(raw: memoryview, tensor: InferInput) -> Array:
    """The numbers of an input, from the JSON or from the bytes after it."""
    parameters = tensor.parameters or InputParameters()
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


def _split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """Split a body into JSON of that length in bytes, and what follows, which is not copied."""
    if length is None:
        return body, memoryview(b"")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > len(body):
        raise InvalidRequestError(
            f"{_LENGTH_OF_JSON}: {length!r} is not a length in a body of {len(body)}"
        )
    return body[: int(length)], memoryview(body)[int(length) :]


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
    answer: dict[str, Any] = {"model_name": policy.name, "model_version": str(policy.version)}
    if request_id is not None:
        answer["id"] = request_id
    answer |= {"parameters": answer_parameters(policy, result), "outputs": outputs}
    if not tensors:
        return json_answer(answer)
    head = encode(answer)
    headers = ((_LENGTH_OF_JSON, str(len(head))),)
    return Answer(200, b"".join([head, *tensors]), "application/octet-stream", headers)
