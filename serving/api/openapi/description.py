"""The OpenAPI 3.1 description: `openapi.json`, completed.

The file has placeholders for what depends on the default model: `<default>` (its name) and, in
examples, `<environment>`, `<row>`, `<named row>`, `<row size>`, `<logits>`, `<probabilities>` and
`<log probability>`. It leaves out:

- the schemas of the types that validate requests and responses: msgspec makes these, so that they
  have one definition;
- what follows from rules: responses that every route has, content of errors, routes of one version
  of a model, formats of numbers.

What client generators need is in docs/protocols.md.
"""

import itertools
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import orjson

from serving.api.exchange import HEALTH
from serving.api.oip.schemas import (
    IndexRequest,
    InferRequest,
    LoadRequest,
    ModelConfig,
    StatisticsReport,
)
from serving.policy.artefact import Card
from serving.policy.observations import FLOAT32_OVERFLOW
from serving.schemas import (
    ActRequest,
    ActResponse,
    Comparison,
    FeedbackRequest,
    FeedbackResponse,
    Health,
    ModelCard,
    ModelsReport,
    Problem,
)

Schema = dict[str, Any]

_TYPES = [
    ActRequest,
    ActResponse,
    FeedbackRequest,
    FeedbackResponse,
    Health,
    ModelsReport,
    Comparison,
    ModelCard,
    Problem,
    IndexRequest,
    InferRequest,
    LoadRequest,
    ModelConfig,
    StatisticsReport,
]
# Without a format, Java clients use 32 bits for an integer and a slow class for a number.
_FORMATS = {"integer": "int64", "number": "double"}


def openapi(cards: Mapping[str, Card | None], max_rows: int, *, keys_are_set: bool) -> Schema:
    """Describe the service.

    Args:
        cards: by name of the model, the default model first; None before any version is served.
        max_rows: the most observations in a request.
        keys_are_set: whether requests need an API key.
    """
    description = _filled_in(*next(iter(cards.items())))
    paths, components = description["paths"], description["components"]
    for name, response in components["responses"].items():
        # Errors have one shape in `/v1` and `/v2` and another elsewhere.
        is_object = name.endswith("Error")
        media_type = "application/json" if is_object else "application/problem+json"
        schema = _reference("schemas", "ErrorObject" if is_object else "Problem")
        response.setdefault("content", {media_type: {"schema": schema}})
    for path, item in paths.items():
        for operation in item.values():
            _add_common_responses(path, operation, keys_are_set=keys_are_set)
    if keys_are_set:
        description["security"] = [{"ApiKey": []}]
    else:
        description["security"] = []
        del components["securitySchemes"], components["headers"]["WwwAuthenticate"]
        del components["responses"]["Unauthorized"], components["responses"]["UnauthorizedError"]
    description["paths"] = _with_versions(paths)
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    schemas |= _act_requests(schemas["ActRequest"], max_rows)
    schemas |= _feedback_requests(schemas["FeedbackRequest"])
    schemas |= _rows([card.observations.names for card in cards.values() if card is not None])
    schemas |= components["schemas"]
    components["schemas"] = {name: _for_clients(schema) for name, schema in schemas.items()}
    return description


def to_json(value: object) -> str:
    """JSON on one line."""
    return orjson.dumps(value).decode()


@cache
def _file() -> str:
    return Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")


def _middle(low: float, high: float) -> float:
    """A number in the middle of a range, with two digits if that is in it."""
    middle = (low + high) / 2
    short = round(middle, 2) + 0.0  # 0.0 where it is -0.0
    return short if low <= short <= high else middle


def _filled_in(default: str, card: Card | None) -> Schema:
    """The file with the values of the default model; without examples if there is no card."""
    values = {"<default>": to_json(default)[1:-1]}
    if card is not None:
        known, actions = card.observations, len(card.actions.names)
        # In the middle of the ranges, so that it is answered without a warning.
        row = list(map(_middle, known.seen_low, known.seen_high))
        values |= {
            '"<environment>"': to_json(card.environment),
            '"<row>"': to_json(row),
            '"<named row>"': to_json(dict(zip(known.names, row, strict=True))),
            '"<row size>"': to_json(len(row)),
            # The outputs of a policy that prefers no action.
            '"<logits>"': to_json([0.0] * actions),
            '"<probabilities>"': to_json([round(1 / actions, 7)] * actions),
            '"<log probability>"': to_json(round(math.log(1 / actions), 7)),
        }
    placeholders = "|".join(map(re.escape, values))
    text = re.sub(placeholders, lambda found: values[found[0]], _file())
    description: Schema = orjson.loads(text)
    if card is None:
        for kind in ("requestBodies", "responses"):
            for body in description["components"][kind].values():
                for content in body.get("content", {}).values():
                    content.pop("examples", None)
                    content.pop("example", None)
    return description


def _reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _add_common_responses(path: str, operation: Schema, *, keys_are_set: bool) -> None:
    """Add the responses that every operation has, and say which need no key."""
    is_tensorflow = path.startswith("/v1/")
    kind = "Error" if is_tensorflow or path.startswith("/v2") else ""
    common = {"default": "OtherError" if kind else "OtherProblem"}
    if not is_tensorflow:  # TensorFlow Serving answers 400
        common["405"] = f"MethodNotAllowed{kind}"
    if path in HEALTH:
        operation["security"] = []
    elif keys_are_set:
        common["401"] = f"Unauthorized{kind}"
    for status, name in common.items():
        operation["responses"][status] = _reference("responses", name)
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _with_versions(paths: Schema) -> Schema:
    """Add the routes of one version of a model, and of TensorFlow Serving's labels."""
    every: Schema = {}
    for path, item in paths.items():
        every[path] = item
        model, _, rest = path.partition("{name}")
        kinds = {"/v1/models/": ("version", "label"), "/v2/models/": ("version",)}
        for which in kinds.get(model, ()):
            every[f"{model}{{name}}/{which}s/{{{which}}}{rest}"] = {
                method: operation
                | {
                    "operationId": f"{operation['operationId']}_by_{which}",
                    "parameters": [
                        *operation["parameters"],
                        _reference("parameters", which.title()),
                    ],
                }
                for method, operation in item.items()
            }
    return every


def _act_requests(schema: Schema, max_rows: int) -> Schema:
    """Msgspec's schema of `ActRequest` as one of two: generators drop a `oneOf` of `required`."""
    properties = schema["properties"]
    row = _reference("schemas", "Row")
    many = properties.pop("observations") | {"items": row, "minItems": 1, "maxItems": max_rows}
    one = row | {"description": properties.pop("observation")["description"]}
    return {
        "ActRequest": {
            "description": schema["description"],
            "oneOf": [
                _reference("schemas", "ActBatchRequest"),
                _reference("schemas", "ActSingleRequest"),
            ],
        },
        "ActBatchRequest": schema
        | {
            "title": "ActBatchRequest",
            "description": "Several observations.",
            "properties": {"observations": many, **properties},
            "required": ["observations"],
        },
        "ActSingleRequest": schema
        | {
            "title": "ActSingleRequest",
            "description": "One observation.",
            "properties": {"observation": one, **properties},
            "required": ["observation"],
        },
    }


def _feedback_requests(schema: Schema) -> Schema:
    """Msgspec's schema of `FeedbackRequest` as one of four, with what excludes each other."""
    properties = schema["properties"]
    schemas = {}
    for subject, other_subject in (("episode", "request"), ("request", "episode")):
        for content, other_content in (("rewards", "return"), ("return", "rewards")):
            name = f"{subject.title()}{content.title()}Feedback"
            excluded = {other_subject, other_content}
            schemas[name] = schema | {
                "title": name,
                "description": f"The {content} of one {subject}.",
                "properties": {k: v for k, v in properties.items() if k not in excluded},
                "required": [subject, content],
            }
    one_of = [_reference("schemas", name) for name in schemas]
    described = {"description": schema["description"], "oneOf": one_of}
    return {"FeedbackRequest": described, **schemas}


def _rows(features: list[list[str]]) -> Schema:
    """A row of numbers that float32 can hold, as any of the served policies takes it.

    Args:
        features: the names of the numbers in an observation, for each served policy.
    """
    number = {
        "type": "number",
        "exclusiveMinimum": -FLOAT32_OVERFLOW,
        "exclusiveMaximum": FLOAT32_OVERFLOW,
    }
    in_order: Schema = {"type": "array", "items": number}
    by_name: Schema = {"type": "object", "description": "An observation as numbers by name."}
    if features:
        sizes = [len(names) for names in features]
        in_order |= {"minItems": min(sizes), "maxItems": max(sizes)}
        by_name |= {
            "properties": dict.fromkeys(itertools.chain(*features), number),
            "required": sorted(set(features[0]).intersection(*features)),
            "additionalProperties": False,
            "minProperties": min(sizes),
        }
    else:
        by_name["additionalProperties"] = number
    return {
        "Row": {
            "description": "Float32 numbers, in the environment's order or by name.",
            "oneOf": [in_order, _reference("schemas", "NamedRow")],
        },
        "NamedRow": by_name,
    }


def _for_clients(schema: Schema) -> Schema:
    """A schema that means the same and of which generators make good clients."""
    schema = dict(schema)
    if "properties" in schema:
        properties = schema["properties"].items()
        schema["properties"] = {name: _for_clients(part) for name, part in properties}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _for_clients(schema[key])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            # In JSON Schema, any number without a fraction is an integer, 7.0 too.
            parts = [_for_clients(part) for part in schema.pop(key) if "multipleOf" not in part]
            schema |= parts[0] if len(parts) == 1 else {key: parts}
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    if "enum" in schema:
        schema.setdefault("type", "string")
    if schema.get("type") == "array":
        schema.setdefault("items", {})
    if schema.get("type") == "object" and "properties" not in schema:
        schema.setdefault("additionalProperties", {})
    if (kind := schema.get("type")) in _FORMATS:
        schema.setdefault("format", _FORMATS[kind])
    return schema
