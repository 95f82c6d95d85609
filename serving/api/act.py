"""`POST /act`: observations in, decisions out."""

import msgspec
from flask import Blueprint, Response, request
from msgspec import UNSET

from serving.api.body import decode, json_body, require_unique_keys
from serving.api.encoding import json_response
from serving.decisions import decide
from serving.errors import InvalidRequestError
from serving.messages import ActRequest, Row
from serving.metrics import Metrics
from serving.observations import to_array
from serving.repository import Repository
from serving.settings import Settings


def act_blueprint(repository: Repository, settings: Settings, metrics: Metrics) -> Blueprint:
    """`POST /act` for the default model, `POST /models/<name>/act` for any."""
    blueprint = Blueprint("act", __name__)
    decoder = msgspec.json.Decoder(ActRequest)

    @blueprint.post("/act", defaults={"name": None})
    @blueprint.post("/models/<name>/act")
    def act(name: str | None) -> Response:
        body = json_body(request)
        asked = decode(body, decoder)
        rows = observation_rows(asked)
        require_unique_keys(body, count_keys(asked, rows))
        policy = repository.policy(name)
        observations = to_array(rows, policy.card.observations.names, settings.max_rows)
        decision, seed, warnings = decide(
            policy,
            observations,
            seed=int(asked.seed) if isinstance(asked.seed, int | float) else None,
            deterministic=asked.deterministic is True,
            metrics=metrics,
        )
        return json_response(
            {
                "actions": decision.actions,
                "action_logits": decision.action_logits,
                "action_probabilities": decision.action_probabilities,
                "log_probabilities": decision.log_probabilities,
                "state_values": decision.state_values,
                "seed": seed,
                "model": policy.identity(),
                "warnings": warnings,
            }
        )

    return blueprint


def observation_rows(asked: ActRequest) -> list[Row]:
    """The observations, one or many.

    Raises:
        InvalidRequestError: both or none were given.
    """
    if asked.observations is not UNSET and asked.observation is not UNSET:
        raise InvalidRequestError("'observations' and 'observation' exclude each other")
    if asked.observations is not UNSET:
        return asked.observations
    if asked.observation is not UNSET:
        return [asked.observation]
    raise InvalidRequestError("'observations' is missing: a list of rows")


def count_keys(asked: ActRequest, rows: list[Row]) -> int:
    """How many keys of the body the decoder kept."""
    named = sum(len(row) for row in rows if isinstance(row, dict))
    return named + sum(getattr(asked, field) is not UNSET for field in asked.__struct_fields__)
