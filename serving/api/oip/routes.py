"""The Open Inference Protocol v2 over REST except `infer`, with Triton's model repository."""

from collections.abc import Callable

import msgspec
from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import MethodNotAllowed

from serving.api.body import BodyReader, decode
from serving.api.messages import add_catch_all, from_flask, json_response
from serving.api.oip.models import InferenceModels
from serving.api.oip.schemas import IndexRequest, LoadRequest
from serving.errors import NotFoundError

_LOAD_DECODER = msgspec.json.Decoder(LoadRequest)
_INDEX_DECODER = msgspec.json.Decoder(IndexRequest)


class InferenceProtocolRoutes:
    """Everything under `/v2` that is not a decision."""

    def __init__(self, models: InferenceModels, bodies: BodyReader) -> None:
        self._models = models
        self._bodies = bodies

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
        # `_other` answers OPTIONS: beside a catch-all rule, Flask's own answer has no Allow.
        for method, rule, view in table:
            blueprint.add_url_rule(
                rule, view_func=view, methods=[method], provide_automatic_options=False
            )
        add_catch_all(blueprint, ["/v2", "/v2/", "/v2/<path:_rest>"], self._other)
        return blueprint

    def _server(self) -> Response:
        return json_response(self._models.server())

    def _live(self) -> Response:
        return json_response({"live": True})

    def _ready(self) -> Response:
        self._models.require_ready()
        return json_response({"ready": True})

    def _model(self, name: str, version: str | None = None) -> Response:
        return json_response(self._models.model(name, version))

    def _model_ready(self, name: str, version: str | None = None) -> Response:
        return json_response(self._models.model_ready(name, version))

    def _config(self, name: str, version: str | None = None) -> Response:
        return json_response(self._models.config(name, version))

    def _all_stats(self) -> Response:
        return json_response(self._models.all_statistics())

    def _stats(self, name: str, version: str | None = None) -> Response:
        return json_response(self._models.statistics(name, version))

    def _index(self) -> Response:
        with self._bodies.opened(from_flask(request)) as body:
            only_ready = bool(body) and decode(body, _INDEX_DECODER).ready is True
        return json_response(self._models.index(only_ready=only_ready))

    def _load(self, name: str) -> Response:
        with self._bodies.opened(from_flask(request)) as body:
            parameters = decode(body, _LOAD_DECODER).parameters if body else None
        self._models.load(name, parameters, g.key)
        return json_response({})

    def _unload(self, name: str) -> Response:
        self._models.unload(name, g.key)
        return json_response({})

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
