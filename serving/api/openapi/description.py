"""The OpenAPI 3.1 description, made of the types that validate and of the served cards.

msgspec's own JSON Schemas are used, because its types already decode every request: a second
library of types would be a second truth. What only a card knows, the names and number of an
observation's entries, is filled in for each model that is served.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from serving.api.openapi.protocols import protocols
from serving.policy.artefact import Card
from serving.policy.observations import FLOAT32_OVERFLOW
from serving.schemas import ActRequest, ActResponse, Health, ModelCard, ModelsReport, Problem

Schema = dict[str, Any]

PROBLEMS = {
    400: "The body is not JSON.",
    404: "No model has that name.",
    413: "The body is too long.",
    415: "The body is not declared to be JSON.",
    422: "The body is JSON and a part of it is missing, unknown, of the wrong type or size.",
    503: "No version is loaded yet. Retry-After says when to ask again.",
}


def openapi(models: Sequence[tuple[str, Card | None]], max_rows: int) -> Schema:
    """Describe the service.

    Args:
        models: name and card of each model, the default one first; None before any version
            of it is served.
        max_rows: most observations in a request.
    """
    _, components = msgspec.json.schema_components(
        [ActRequest, ActResponse, Health, ModelsReport, ModelCard, Problem],
        ref_template="#/components/schemas/{name}",
    )
    request = components.pop("ActRequest")
    paths = {}
    for place, (name, card) in enumerate(models):
        schema = f"ActRequest_{name}"
        components[schema] = act_request(request, card, max_rows)
        asked = _act(name, schema, card)
        paths[f"/models/{name}/act"] = {"post": asked | {"operationId": f"act_{name}"}}
        if place == 0:
            paths["/act"] = {"post": asked | {"operationId": "act"}}
    other_paths, other_components = protocols(models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Actor-critic policies",
            "version": "1",
            "description": "Observations in, decisions out.",
        },
        "paths": {
            **dict(sorted(paths.items())),
            "/models": _get(
                "models", "Every model, and which version is served and why", ModelsReport
            ),
            **{
                f"/models/{name}": _get(
                    f"model_{name}", f"The versions of {name}, and the policy card", ModelCard
                )
                for name, _ in models
            },
            "/health/live": _get("live", "200 while the process runs", Health),
            "/health/ready": _get("ready", "200 once a version can answer", Health, 503),
            **other_paths,
        },
        "components": {"schemas": components | other_components},
    }


def act_request(schema: Schema, card: Card | None, max_rows: int) -> Schema:
    """Msgspec's schema of `ActRequest`, with what a card knows about rows."""
    properties = schema["properties"]
    row = properties["observation"] if card is None else row_schema(card.observations.names)
    observations = {
        "type": "array",
        "items": {key: row[key] for key in row if key != "description"},
        "minItems": 1,
        "maxItems": max_rows,
        "description": properties["observations"]["description"],
    }
    return schema | {
        "properties": properties
        | {
            "observations": observations,
            "observation": row | {"description": properties["observation"]["description"]},
        },
        "oneOf": [{"required": ["observations"]}, {"required": ["observation"]}],
    }


def row_schema(names: list[str]) -> Schema:
    """A row of numbers that float32 can hold, in order or by name."""
    number = {
        "type": "number",
        "exclusiveMinimum": -FLOAT32_OVERFLOW,
        "exclusiveMaximum": FLOAT32_OVERFLOW,
    }
    return {
        "oneOf": [
            {
                "type": "array",
                "items": number,
                "minItems": len(names),
                "maxItems": len(names),
            },
            {
                "type": "object",
                "properties": dict.fromkeys(names, number),
                "required": names,
                "additionalProperties": False,
            },
        ]
    }


def examples(card: Card) -> dict[str, Schema]:
    """Requests that the model with this card answers without a warning."""
    known = card.observations
    middle = [
        round((low + high) / 2, 2)
        for low, high in zip(known.seen_low, known.seen_high, strict=True)
    ]
    named = dict(zip(known.names, middle, strict=True))
    return {
        "sampled": {
            "summary": "Two rows, sampled, to be replayed by the seed",
            "value": {"observations": [middle, middle], "seed": 7},
        },
        "named": {
            "summary": "One row by name, the most probable action",
            "value": {"observation": named, "deterministic": True},
        },
    }


def _act(name: str, schema: str, card: Card | None) -> Schema:
    content: Schema = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if card is not None:
        content["examples"] = examples(card)
    return {
        "summary": f"Decide about observations with the policy of {name}",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": _answers(ActResponse, *PROBLEMS),
    }


def _get(operation: str, summary: str, answer: type, *problems: int) -> Schema:
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "responses": _answers(answer, *problems),
        }
    }


def _answers(answer: type, *problems: int) -> Schema:
    return {
        "200": _answer("Done.", "application/json", answer),
        **{
            str(status): _answer(PROBLEMS[status], "application/problem+json", Problem)
            for status in problems
        },
        "default": _answer("Any other problem.", "application/problem+json", Problem),
    }


def _answer(description: str, media_type: str, kind: type) -> Schema:
    reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"description": description, "content": {media_type: {"schema": reference}}}
