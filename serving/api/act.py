"""`POST /act`: observations in, decisions out."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, Response, request
from msgspec import UNSET

from serving.api.body import decode, json_body, require_unique_keys
from serving.api.encoding import json_response
from serving.errors import InvalidRequestError
from serving.metrics import Metrics
from serving.policy.decide import Decided, decide
from serving.policy.observations import to_array
from serving.policy.savedmodel import Policy
from serving.registry.repository import Repository
from serving.schemas import ActRequest, Row
from serving.settings import Settings


class Asked(NamedTuple):
    """A request that is right as far as can be told without the policy."""

    rows: list[Row]
    seed: int | None
    deterministic: bool


_DECODER = msgspec.json.Decoder(ActRequest)


def act_blueprint(repository: Repository, settings: Settings, metrics: Metrics) -> Blueprint:
    """`POST /act` for the default model, `POST /models/<name>/act` for any."""
    blueprint = Blueprint("act", __name__)

    @blueprint.post("/act", defaults={"name": None})
    @blueprint.post("/models/<name>/act")
    def act(name: str | None) -> Response:
        asked = read_act(json_body(request))
        policy = repository.policy(name)
        decided = decide(
            policy,
            to_array(asked.rows, policy.card.observations.names, settings.max_rows),
            seed=asked.seed,
            deterministic=asked.deterministic,
            metrics=metrics,
        )
        return json_response(answer_act(policy, decided))

    return blueprint


def read_act(body: bytes) -> Asked:
    """Decode and validate a body.

    Raises:
        ProblemError: it is not JSON, or a part of it is wrong.
    """
    asked = decode(body, _DECODER)
    rows = observation_rows(asked)
    require_unique_keys(body, count_keys(asked, rows))
    return Asked(
        rows,
        int(asked.seed) if isinstance(asked.seed, int | float) else None,
        asked.deterministic is True,
    )


def answer_act(policy: Policy, decided: Decided) -> dict[str, Any]:
    """The answer, to be encoded."""
    decision, seed, warnings = decided
    return {
        "actions": decision.actions,
        "action_logits": decision.action_logits,
        "action_probabilities": decision.action_probabilities,
        "log_probabilities": decision.log_probabilities,
        "state_values": decision.state_values,
        "seed": seed,
        "model": policy.identity(),
        "warnings": warnings,
    }


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


def count_keys(asked: ActRequest, rows: list[Row]) -> Iterator[int]:
    """How many keys of the body the decoder kept: without those of the rows, then with them."""
    fields = sum(getattr(asked, field) is not UNSET for field in asked.__struct_fields__)
    yield fields
    yield fields + sum(len(row) for row in rows if isinstance(row, dict))
