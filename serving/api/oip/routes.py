"""The Open Inference Protocol v2 over REST, with Triton's binary tensors and model repository."""

from functools import partial
from typing import Any, Literal

import msgspec
from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from serving.api.body import body_bytes, decode
from serving.api.encoding import encode, json_response
from serving.api.oip import binary
from serving.api.oip.schemas import (
    IndexRequest,
    InferInput,
    InferRequest,
    RequestParameters,
)
from serving.api.tensors import DATATYPES, NAMES, Array, numbers_from_bytes, numbers_from_json
from serving.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    error_object_response,
    register_error_handlers,
)
from serving.metrics import Metrics
from serving.policy.decide import Decided, decide
from serving.policy.observations import FloatArray, from_numbers, require_shape
from serving.policy.savedmodel import Decision, Policy
from serving.registry.repository import Repository
from serving.registry.selection import SelectionError
from serving.settings import Settings

_OBSERVATIONS = "observations"
_TF_DATATYPES = {"DT_FLOAT": "FP32", "DT_INT64": "INT64"}
_OTHERS = ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"]
_LOADED = ("served", "labelled")


def oip_blueprint(
    repository: Repository, settings: Settings, metrics: Metrics, *, keys_are_set: bool
) -> Blueprint:
    """Everything under `/v2`.

    Args:
        repository: of the policies.
        settings: for the limits of a request.
        metrics: that count decisions.
        keys_are_set: whether the service asks for API keys; without them nobody may load or
            unload a model.
    """
    blueprint = Blueprint("oip", __name__, url_prefix="/v2")
    register_error_handlers(blueprint, error_object_response)
    # Flask's own answer to OPTIONS would count in what only tells of mistakes.
    get = partial(blueprint.route, methods=["GET"], provide_automatic_options=False)
    post = partial(blueprint.route, methods=["POST"], provide_automatic_options=False)
    other_methods = partial(blueprint.route, methods=_OTHERS, provide_automatic_options=False)
    infer_decoder = msgspec.json.Decoder(InferRequest)
    index_decoder = msgspec.json.Decoder(IndexRequest)

    @get("")
    @get("/")
    def server() -> Response:
        extensions = ["binary_tensor_data", "model_repository"]
        return json_response({"name": "actor-critic", "version": "1", "extensions": extensions})

    @get("/health/live")
    def live() -> Response:
        return json_response({"live": True})

    @get("/health/ready")
    def ready() -> Response:
        repository.policy()
        return json_response({"ready": True})

    @get("/models/<name>", defaults={"version": None})
    @get("/models/<name>/versions/<version>")
    def model(name: str, version: str | None) -> Response:
        policy = find(name, version)
        signature = policy.signatures["serving_default"]
        return json_response(
            {
                "name": policy.name,
                "versions": [
                    str(report.version)
                    for report in repository.report(name).versions
                    if report.state in _LOADED
                ],
                "platform": "tensorflow_savedmodel",
                "inputs": _metadata(signature["inputs"]),
                "outputs": _metadata(signature["outputs"]),
            }
        )

    @get("/models/<name>/ready", defaults={"version": None})
    @get("/models/<name>/versions/<version>/ready")
    def model_ready(name: str, version: str | None) -> Response:
        return json_response({"name": find(name, version).name, "ready": True})

    @post("/models/<name>/infer", defaults={"version": None})
    @post("/models/<name>/versions/<version>/infer")
    def infer(name: str, version: str | None) -> Response:
        head, raw = binary.read(request)
        asked = decode(head, infer_decoder)
        policy = find(name, version)
        parameters = asked.parameters or RequestParameters()
        names = _chosen(asked, parameters)
        observations = _observations(asked.inputs, raw, policy, settings.max_rows)
        decided = decide(
            policy,
            observations,
            seed=None if parameters.seed is None else int(parameters.seed),
            deterministic=parameters.deterministic is True,
            metrics=metrics,
        )
        return _answer(asked, policy, decided, names)

    @post("/repository/index")
    def index() -> Response:
        body = body_bytes(request)
        only_ready = bool(body) and decode(body, index_decoder).ready is True
        entries = [
            {
                "name": name,
                "version": str(report.version),
                "state": "READY" if report.state in _LOADED else "UNAVAILABLE",
                "reason": report.reason,
            }
            for name in repository.names()
            for report in repository.report(name).versions
            if report.state in _LOADED or not only_ready
        ]
        return json_response(entries)

    @post("/repository/models/<name>/load")
    def load(name: str) -> Response:
        select(name, "newest")
        repository.policy(name)
        return json_response({})

    @post("/repository/models/<name>/unload")
    def unload(name: str) -> Response:
        select(name, "nothing")
        return json_response({})

    def select(name: str, serve: Literal["newest", "nothing"]) -> None:
        if not keys_are_set:
            raise ForbiddenError("models are loaded and unloaded only where API keys are set")
        if settings.pin is not None and name == settings.name:
            raise ConflictError(f"{name}: the service was started with version {settings.pin}")
        try:
            selection = msgspec.structs.replace(repository.selection(name), serve=serve)
            repository.select(name, selection)
        except SelectionError as error:
            # Not 503: the folder is read-only by the operator's decision, and stays so.
            raise ConflictError(str(error)) from error

    def find(name: str, version: str | None) -> Policy:
        if version is None:
            return repository.policy(name)
        if not (version.isascii() and version.isdecimal()):
            raise NotFoundError(f"versions are whole numbers, and {version!r} is none")
        return repository.policy(name, version=int(version))

    @other_methods("")
    @other_methods("/")
    @blueprint.route("/<path:_rest>", methods=["GET", *_OTHERS], provide_automatic_options=False)
    def other(_rest: str = "") -> Response:
        allowed = []
        for method in ("GET", "HEAD", "POST"):
            try:
                endpoint, _ = current_app.url_map.bind("").match(request.path, method)
            except HTTPException:
                continue
            if endpoint != request.endpoint:
                allowed.append(method)
        if not allowed:
            raise NotFoundError(f"there is no {request.path}")
        if request.method == "OPTIONS":
            return Response(headers={"Allow": ", ".join([*allowed, "OPTIONS"])})
        raise MethodNotAllowed(allowed)

    return blueprint


def _metadata(tensors: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": _TF_DATATYPES[tensor["dtype"]],
            "shape": [int(dimension["size"]) for dimension in tensor["tensor_shape"]["dim"]],
        }
        for name, tensor in sorted(tensors.items())
    ]


def _observations(
    inputs: list[InferInput], raw: memoryview, policy: Policy, max_rows: int
) -> FloatArray:
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
    return from_numbers(numbers, names, max_rows)


def _chosen(asked: InferRequest, parameters: RequestParameters) -> dict[str, bool]:
    """The outputs to answer, and which of them as bytes.

    Raises:
        InvalidRequestError: one is unknown or comes twice.
    """
    as_bytes = parameters.binary_data_output is True
    if not asked.outputs:
        return dict.fromkeys(Decision._fields, as_bytes)
    chosen: dict[str, bool] = {}
    for output in asked.outputs:
        if output.name not in Decision._fields or output.name in chosen:
            problem = "asked for twice" if output.name in chosen else "unknown"
            raise InvalidRequestError(
                f"outputs: {output.name!r} is {problem}; there are {', '.join(Decision._fields)}"
            )
        own = None if output.parameters is None else output.parameters.binary_data
        chosen[output.name] = as_bytes if own is None else own
    return chosen


def _answer(
    asked: InferRequest, policy: Policy, decided: Decided, chosen: dict[str, bool]
) -> Response:
    outputs, tensors = [], []
    for name, as_bytes in chosen.items():
        array = getattr(decided.decision, name)
        described = {"name": name, "datatype": NAMES[array.dtype], "shape": array.shape}
        if as_bytes:
            tensors.append(array.data)
            outputs.append(described | {"parameters": {"binary_data_size": array.nbytes}})
        else:
            outputs.append(described | {"data": array.ravel()})
    parameters: dict[str, Any] = {"seed": decided.seed}
    if decided.warnings:
        # A parameter is a string, a number or a boolean.
        parameters["warnings"] = "\n".join(decided.warnings)
    answer: dict[str, Any] = {"model_name": policy.name, "model_version": str(policy.version)}
    if asked.id is not None:
        answer["id"] = asked.id
    answer |= {"parameters": parameters, "outputs": outputs}
    if not tensors:
        return json_response(answer)
    return binary.write(encode(answer), tensors)
