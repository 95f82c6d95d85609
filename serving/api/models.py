"""What is served."""

import msgspec
from flask import Blueprint, Response

from serving.api.encoding import json_response
from serving.errors import NotFoundError
from serving.repository import Repository


def models_blueprint(repository: Repository) -> Blueprint:
    """`GET /models` and `GET /models/<name>`."""
    blueprint = Blueprint("models", __name__, url_prefix="/models")

    @blueprint.get("")
    def models() -> Response:
        policy = repository.current()
        return json_response({"models": [policy.identity()]})

    @blueprint.get("/<name>")
    def model(name: str) -> Response:
        policy = repository.current()
        if name != policy.name:
            raise NotFoundError(f"no model is called {name!r}; this service has {policy.name!r}")
        card = msgspec.json.decode(policy.card_json)
        return json_response({**policy.identity(), "policy": card})

    return blueprint
