"""The OpenAPI 3.1 description: `openapi.json`, filled in for the models that are served.

The file has placeholders for what depends on a model: `<name>`, `<default>` (the name of the
default model) and, in examples, `<row>`, `<named row>` and `<row size>`. It leaves out the schemas
of the types that validate requests and responses: msgspec makes these, so that they have one
definition.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import orjson

from serving.api.oip.schemas import IndexRequest, InferRequest
from serving.policy.artefact import Card
from serving.policy.observations import FLOAT32_OVERFLOW
from serving.schemas import ActRequest, ActResponse, Health, ModelCard, ModelsReport, Problem

Schema = dict[str, Any]


def openapi(cards: Mapping[str, Card | None], max_rows: int) -> Schema:
    """Describe the service.

    Args:
        cards: by name of the model, the default model first; None before any version is served.
        max_rows: the most observations in a request.
    """
    types = [ActRequest, ActResponse, Health, ModelsReport, ModelCard, Problem]
    types += [IndexRequest, InferRequest]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    request = schemas.pop("ActRequest")
    default = next(iter(cards))
    description, *others = [_filled_in(name, default, card) for name, card in cards.items()]
    for other in others:
        description["paths"] |= other["paths"]
        description["components"]["requestBodies"] |= other["components"]["requestBodies"]
    for name, card in cards.items():
        schemas[f"ActRequest_{name}"] = _act_request(request, card, max_rows)
    description["components"]["schemas"] = schemas | description["components"]["schemas"]
    return description


def to_json(value: object) -> str:
    """JSON on one line."""
    return orjson.dumps(value).decode()


@cache
def _file() -> str:
    return Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")


def _filled_in(name: str, default: str, card: Card | None) -> Schema:
    """The file with the values of one model; without examples if there is no card."""
    values = {"<name>": to_json(name)[1:-1], "<default>": to_json(default)[1:-1]}
    if card is not None:
        known = card.observations
        # In the middle of what training saw, so that it is answered without a warning.
        seen = zip(known.seen_low, known.seen_high, strict=True)
        row = [round((low + high) / 2, 2) for low, high in seen]
        values |= {
            '"<row>"': to_json(row),
            '"<named row>"': to_json(dict(zip(known.names, row, strict=True))),
            '"<row size>"': to_json(len(row)),
        }
    placeholders = "|".join(map(re.escape, values))
    text = re.sub(placeholders, lambda found: values[found[0]], _file())
    description: Schema = orjson.loads(text)
    if card is None:
        for kind in ("Act", "Predict", "Infer"):
            body = description["components"]["requestBodies"][f"{kind}_{name}"]
            del body["content"]["application/json"]["examples"]
    return description


def _act_request(schema: Schema, card: Card | None, max_rows: int) -> Schema:
    """Msgspec's schema of `ActRequest`, with what a card knows about rows."""
    properties = schema["properties"]
    many = properties["observations"] | {"minItems": 1, "maxItems": max_rows}
    one = properties["observation"]
    if card is not None:
        row = _row(card.observations.names)
        many["items"] = row
        one = row | {"description": one["description"]}
    return schema | {
        "properties": properties | {"observations": many, "observation": one},
        "oneOf": [{"required": ["observations"]}, {"required": ["observation"]}],
    }


def _row(names: list[str]) -> Schema:
    """A row of numbers that float32 can hold, in order or by name."""
    number = {
        "type": "number",
        "exclusiveMinimum": -FLOAT32_OVERFLOW,
        "exclusiveMaximum": FLOAT32_OVERFLOW,
    }
    in_order = {"type": "array", "items": number, "minItems": len(names), "maxItems": len(names)}
    by_name = {
        "type": "object",
        "properties": dict.fromkeys(names, number),
        "required": names,
        "additionalProperties": False,
    }
    return {"oneOf": [in_order, by_name]}
