"""Is the process alive, and can it answer?"""

from flask import Blueprint, Response

from serving.api.messages import json_response
from serving.registry.repository import Repository


def health_blueprint(repository: Repository) -> Blueprint:
    """`GET /health/live` and `GET /health/ready`."""
    blueprint = Blueprint("health", __name__, url_prefix="/health")

    @blueprint.get("/live")
    def live() -> Response:
        return json_response({"status": "live"})

    @blueprint.get("/ready")
    def ready() -> Response:
        policy = repository.policy()
        return json_response({"status": "ready", "model": policy.identity()})

    return blueprint
