"""What is served, and why."""

import msgspec
from flask import Blueprint, Response

from serving.api.encoding import json_response
from serving.errors import NotReadyError
from serving.messages import ModelsReport
from serving.repository import Repository


def models_blueprint(repository: Repository) -> Blueprint:
    """`GET /models` and `GET /models/<name>`."""
    blueprint = Blueprint("models", __name__, url_prefix="/models")

    @blueprint.get("")
    def models() -> Response:
        reports = [repository.report(name) for name in repository.names()]
        return json_response(msgspec.to_builtins(ModelsReport(reports)))

    @blueprint.get("/<name>")
    def model(name: str) -> Response:
        report = repository.report(name)
        try:
            card = msgspec.json.decode(repository.policy(name).card_json)
        except NotReadyError:
            card = None
        return json_response({**msgspec.to_builtins(report), "policy": card})

    return blueprint
