"""`GET /openapi.json`, and the same for people at `GET /docs`."""

from contextlib import suppress
from urllib.parse import quote

from flask import Blueprint, Response

from serving.api.messages import json_response
from serving.api.openapi.description import Schema, openapi
from serving.api.openapi.page import page_content
from serving.api.pages import docs_page
from serving.errors import NotFoundError, NotReadyError
from serving.policy.artefact import Card
from serving.registry.repository import Repository
from serving.settings import Settings


def docs_blueprint(repository: Repository, settings: Settings, *, keys_are_set: bool) -> Blueprint:
    """`GET /openapi.json` and `GET /docs`."""
    blueprint = Blueprint("docs", __name__)

    def description() -> Schema:
        cards: dict[str, Card | None] = dict.fromkeys(repository.names())
        for name in cards:
            with suppress(NotFoundError, NotReadyError):  # the model may be gone by now
                cards[name] = repository.policy(name).card
        return openapi(cards, settings.max_rows, keys_are_set=keys_are_set)

    @blueprint.get("/openapi.json")
    def openapi_json() -> Response:
        return json_response(description())

    @blueprint.get("/docs")
    def docs() -> Response:
        return docs_page(page_content(description()) | _served_by_default(repository))

    return blueprint


def _served_by_default(repository: Repository) -> dict[str, str]:
    """What the header of the page says of the default model, and the address of its card."""
    try:
        policy = repository.policy()
    except NotReadyError:
        return {}
    return {
        "served": f"{policy.name} version {policy.version}",
        "card": f"models/{quote(policy.name, safe='')}",
    }
