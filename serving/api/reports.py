"""How the service reports on itself: its health, its metrics and its models."""

from http import HTTPStatus

import msgspec
import orjson
from flask import Blueprint, Response, request

from serving.api.messages import json_response
from serving.api.pages import asks_for_page, card_page
from serving.errors import NotFoundError, NotReadyError
from serving.metrics import Metrics
from serving.record.shadow import Shadows
from serving.registry.repository import Repository
from serving.schemas import ModelsReport


def health_blueprint(repository: Repository, metrics: Metrics) -> Blueprint:
    """`GET /health/live`, `GET /health/ready` and `GET /metrics`, for Prometheus."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health/live")
    def live() -> Response:
        return json_response({"status": "live"})

    @blueprint.get("/health/ready")
    def ready() -> Response:
        return json_response({"status": "ready", "model": repository.policy().identity()})

    @blueprint.get("/metrics")
    def scrape() -> Response:
        text, content_type = metrics.text(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)

    return blueprint


def models_blueprint(repository: Repository, shadows: Shadows) -> Blueprint:
    """`GET /models`, `GET /models/<name>` (a page in browsers), its pictures and comparison."""
    blueprint = Blueprint("models", __name__, url_prefix="/models")

    @blueprint.get("")
    def models() -> Response:
        return json_response(ModelsReport(repository.reports()))

    @blueprint.get("/<name>")
    def model(name: str) -> Response:
        try:
            report = repository.report(name)
        except NotFoundError:
            if not asks_for_page():
                raise
            return card_page(HTTPStatus.NOT_FOUND)
        if asks_for_page():
            return card_page()
        try:
            card = orjson.Fragment(repository.policy(name).card_json)
        except NotReadyError:
            card = None
        response = json_response({**msgspec.to_builtins(report), "policy": card})
        response.vary.add("Accept")
        return response

    @blueprint.get("/<name>/comparison")
    def comparison(name: str) -> Response:
        return json_response(shadows.comparison(name))

    @blueprint.get("/<name>/learning_curve.png", defaults={"picture": "learning_curve.png"})
    @blueprint.get("/<name>/episode.gif", defaults={"picture": "episode.gif"})
    def picture(name: str, picture: str) -> Response:
        policy = repository.policy(name)
        if picture not in policy.pictures:
            raise NotFoundError(f"version {policy.version} of {name} came without {picture}")
        content_type = f"image/{picture.rpartition('.')[2]}"
        return Response(policy.pictures[picture], content_type=content_type)

    return blueprint
