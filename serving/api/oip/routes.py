"""The Open Inference Protocol v2 over REST but for `infer`, with Triton's model repository."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import MethodNotAllowed

from serving.api.body import BodyReader, decode
from serving.api.messages import add_catch_all, from_flask, json_response
from serving.api.oip.infer import find
from serving.api.oip.schemas import (
    Duration,
    IndexRequest,
    InferenceStatistics,
    LoadRequest,
    ModelConfig,
    StatisticsReport,
    TensorConfig,
    VersionStatistics,
)
from serving.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from serving.policy.savedmodel import Policy
from serving.registry.repository import Repository
from serving.registry.selection import SelectionError
from serving.settings import Settings
from serving.statistics import Inferences, Statistics

logger = logging.getLogger(__name__)

_TF_DATATYPES = {"DT_FLOAT": "FP32", "DT_INT64": "INT64"}
_PLATFORM = "tensorflow_savedmodel"
_LOADED = ("served", "canary", "shadow", "labelled")
_LOAD_DECODER = msgspec.json.Decoder(LoadRequest)
_INDEX_DECODER = msgspec.json.Decoder(IndexRequest)


class InferenceProtocolRoutes:
    """Everything under `/v2` that is no decision."""

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        bodies: BodyReader,
        statistics: Statistics,
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._bodies = bodies
        self._statistics = statistics

    def blueprint(self) -> Blueprint:
        """The routes."""
        blueprint = Blueprint("oip", __name__, url_prefix="/v2")
        table: list[tuple[str, str, Callable[..., Response]]] = [
            ("GET", "", self._server),
            ("GET", "/", self._server),
            ("GET", "/health/live", self._live),
            ("GET", "/health/ready", self._ready),
            ("GET", "/models/<name>", self._model),
            ("GET", "/models/<name>/versions/<version>", self._model),
            ("GET", "/models/<name>/ready", self._model_ready),
            ("GET", "/models/<name>/versions/<version>/ready", self._model_ready),
            ("GET", "/models/<name>/config", self._config),
            ("GET", "/models/<name>/versions/<version>/config", self._config),
            ("GET", "/models/stats", self._all_stats),
            ("GET", "/models/<name>/stats", self._stats),
            ("GET", "/models/<name>/versions/<version>/stats", self._stats),
            ("POST", "/repository/index", self._index),
            ("POST", "/repository/models/<name>/load", self._load),
            ("POST", "/repository/models/<name>/unload", self._unload),
        ]
        # Flask's own answer to OPTIONS would count in what only tells of mistakes.
        for method, rule, view in table:
            blueprint.add_url_rule(
                rule, view_func=view, methods=[method], provide_automatic_options=False
            )
        add_catch_all(blueprint, ["/v2", "/v2/", "/v2/<path:_rest>"], self._other)
        return blueprint

    def _server(self) -> Response:
        extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
        return json_response({"name": "actor-critic", "version": "1", "extensions": extensions})

    def _live(self) -> Response:
        return json_response({"live": True})

    def _ready(self) -> Response:
        self._repository.policy()
        return json_response({"ready": True})

    def _model(self, name: str, version: str | None = None) -> Response:
        policy = find(self._repository, name, version).policy
        signature = policy.signatures["serving_default"]
        versions = self._repository.report(name).versions
        return json_response(
            {
                "name": policy.name,
                "versions": [str(one.version) for one in versions if one.state in _LOADED],
                "platform": _PLATFORM,
                "inputs": _metadata(signature["inputs"]),
                "outputs": _metadata(signature["outputs"]),
            }
        )

    def _model_ready(self, name: str, version: str | None = None) -> Response:
        return json_response(
            {"name": find(self._repository, name, version).policy.name, "ready": True}
        )

    def _config(self, name: str, version: str | None = None) -> Response:
        policy = find(self._repository, name, version).policy
        signature = policy.signatures["serving_default"]
        inputs, outputs = (
            [
                TensorConfig(tensor["name"], f"TYPE_{tensor['datatype']}", tensor["shape"])
                for tensor in _metadata(signature[kind])
            ]
            for kind in ("inputs", "outputs")
        )
        config = ModelConfig(policy.name, _PLATFORM, "tensorflow", 0, inputs, outputs)
        return json_response(config)

    def _all_stats(self) -> Response:
        names = self._repository.names()
        return self._stats_of([one for name in names for one in self._repository.loaded(name)])

    def _stats(self, name: str, version: str | None = None) -> Response:
        policies = [] if version is not None else self._repository.loaded(name)
        return self._stats_of(policies or [find(self._repository, name, version).policy])

    def _stats_of(self, policies: list[Policy]) -> Response:
        totals = [(one, self._statistics.total(one.name, one.version)) for one in policies]
        return json_response(StatisticsReport([_statistics(*total) for total in totals]))

    def _index(self) -> Response:
        with self._bodies.opened(from_flask(request)) as body:
            only_ready = bool(body) and decode(body, _INDEX_DECODER).ready is True
        entries = [
            {
                "name": name,
                "version": str(report.version),
                "state": "READY" if report.state in _LOADED else "UNAVAILABLE",
                "reason": report.reason,
            }
            for name in self._repository.names()
            for report in self._repository.report(name).versions
            if report.state in _LOADED or not only_ready
        ]
        return json_response(entries)

    def _load(self, name: str) -> Response:
        with self._bodies.opened(from_flask(request)) as body:
            parameters = decode(body, _LOAD_DECODER).parameters if body else None
        if parameters:
            first = next(iter(parameters))
            what = "a version is loaded as it is in the models folder"
            raise InvalidRequestError(f"parameters: {first!r} is not supported: {what}")
        self._select(name, "newest")
        self._repository.policy(name)
        return json_response({})

    def _unload(self, name: str) -> Response:
        self._select(name, "nothing")
        return json_response({})

    def _select(self, name: str, serve: Literal["newest", "nothing"]) -> None:
        if g.key is None:
            raise ForbiddenError("models are loaded and unloaded only where API keys are set")
        if (pin := self._settings.pin) is not None and name == self._settings.name:
            raise ConflictError(f"{name}: the service was started with version {pin}")
        try:
            selection = msgspec.structs.replace(self._repository.selection(name), serve=serve)
            self._repository.select(name, selection)
        except SelectionError as error:
            # Not 503: the folder is read-only by the operator's decision, and stays so.
            raise ConflictError(str(error)) from error
        logger.info("%s serves %s from now on, by API key %s", name, serve, g.key.name)

    def _other(self, _rest: str = "") -> Response:
        """What no other route takes: 405 where another method is allowed, else 404."""
        match = current_app.url_map.bind("").match
        allowed = [
            method
            for method in ("GET", "HEAD", "POST")
            if match(request.path, method)[0] != request.endpoint
        ]
        if not allowed:
            raise NotFoundError(f"there is no {request.path}")
        allowed.append("OPTIONS")
        if request.method == "OPTIONS":
            return Response(headers={"Allow": ", ".join(allowed)})
        raise MethodNotAllowed(allowed)


def _metadata(tensors: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": _TF_DATATYPES[tensor["dtype"]],
            "shape": [int(dimension["size"]) for dimension in tensor["tensor_shape"]["dim"]],
        }
        for name, tensor in sorted(tensors.items())
    ]


def _statistics(policy: Policy, total: Inferences) -> VersionStatistics:
    steps = total.decode_nanoseconds, total.decide_nanoseconds, total.encode_nanoseconds
    decode, decide, encode = (Duration(total.requests, step) for step in steps)
    return VersionStatistics(
        name=policy.name,
        version=str(policy.version),
        last_inference=total.last_milliseconds,
        inference_count=total.rows,
        execution_count=total.executions,
        inference_stats=InferenceStatistics(
            success=Duration(total.requests, sum(steps)),
            fail=Duration(total.failures, total.failure_nanoseconds),
            compute_input=decode,
            compute_infer=decide,
            compute_output=encode,
            queue=Duration(total.requests, 0),
            cache_hit=Duration(0, 0),
            cache_miss=Duration(0, 0),
        ),
        batch_stats=[],
    )
