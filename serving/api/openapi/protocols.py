"""The part of the OpenAPI description about TensorFlow Serving's REST API and the OIP v2.

TensorFlow Serving's tensors are told apart by the signature, and those of the Open Inference
Protocol by their shape, which are data: the schemas say no more than their outline.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from serving.api.oip.schemas import (
    ErrorObject,
    IndexEntry,
    IndexRequest,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from serving.policy.artefact import Card, Observations

Schema = dict[str, Any]

_TYPES = [
    *(ErrorObject, IndexEntry, IndexRequest, InferRequest, InferResponse, ModelMetadata),
    *(ModelReady, ServerLive, ServerMetadata, ServerReady),
]
_SCHEMAS: dict[str, Schema] = {
    "PredictRequest": {
        "type": "object",
        "description": "Tensors by rows (`instances`) or by columns (`inputs`): exactly one.",
        "properties": {
            "signature_name": {"type": "string", "description": "`serving_default` or `act`."},
            "instances": {"type": "array", "description": "Values, or objects of them by name."},
            "inputs": {"description": "A tensor, or an object of them by name."},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "PredictResponse": {
        "type": "object",
        "description": "By rows if asked by rows, else by columns.",
        "properties": {
            "predictions": {"type": "array", "items": {"type": "object"}},
            "outputs": {"type": "object"},
        },
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
    },
    "ModelVersionStatus": {
        "type": "object",
        "description": "Every version that was tried.",
        "properties": {"model_version_status": {"type": "array", "items": {"type": "object"}}},
        "required": ["model_version_status"],
    },
    "SignatureMetadata": {
        "type": "object",
        "description": "The signatures of a version, in protobuf's JSON.",
        "properties": {"model_spec": {"type": "object"}, "metadata": {"type": "object"}},
        "required": ["model_spec", "metadata"],
    },
    "Index": {
        "type": "array",
        "description": "The versions of all models.",
        "items": {"$ref": "#/components/schemas/IndexEntry"},
    },
    "Done": {"type": "object", "description": "Nothing more to say.", "maxProperties": 0},
}


def protocols(models: Sequence[tuple[str, Card | None]]) -> tuple[Schema, Schema]:
    """Describe what is under `/v1` and `/v2`.

    Args:
        models: name and card of each model; None before any version of it is served.

    Returns:
        Paths, and the schemas that they refer to.
    """
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    ready = {"ready": {"summary": "Those that can answer", "value": {"ready": True}}}
    paths = {
        "/v1/models": _get("tf_models", "Always 400: a model must be named", None),
        "/v2": _get("oip_server", "The service and its extensions", "ServerMetadata"),
        "/v2/": _get("oip_server_slash", "The same as /v2", "ServerMetadata"),
        "/v2/health/live": _get("oip_live", "200 while the process runs", "ServerLive"),
        "/v2/health/ready": _get("oip_ready", "200 once a version can answer", "ServerReady"),
        "/v2/repository/index": _post(
            "oip_index", "The versions on the disk", "Index", _body("IndexRequest", ready, False)
        ),
    }
    for name, card in models:
        paths |= _tfserving(name, card) | _oip(name, card)
    return paths, schemas | _SCHEMAS


def _tfserving(name: str, card: Card | None) -> Schema:
    number = _parameter("version", {"type": "integer", "minimum": 0})
    word = _parameter("label", {"type": "string", "pattern": "^[a-zA-Z0-9_]+$"})
    body = _body("PredictRequest", {} if card is None else _predict_examples(card.observations))
    paths: Schema = {}
    for kind, where in [("", []), ("version", [number]), ("label", [word])]:
        at = f"/v1/models/{name}" + (f"/{kind}s/{{{kind}}}" if kind else "")
        by = f"{name}_by_{kind}" if kind else name
        described = {
            at: _get(f"tf_status_{by}", "The versions and their states", "ModelVersionStatus"),
            f"{at}/metadata": _get(f"tf_metadata_{by}", "The signatures", "SignatureMetadata"),
            f"{at}:predict": _post(f"tf_predict_{by}", "Run a signature", "PredictResponse", body),
            f"{at}:classify": _post(f"tf_classify_{by}", "Always an error: no such signature"),
            f"{at}:regress": _post(f"tf_regress_{by}", "Always an error: no such signature"),
        }
        paths |= _with_parameters(described, where)
    return paths


def _oip(name: str, card: Card | None) -> Schema:
    word = _parameter("version", {"type": "string"})
    body = _body("InferRequest", {} if card is None else _infer_examples(card.observations))
    paths: Schema = {}
    for kind, where in [("", []), ("version", [word])]:
        at = f"/v2/models/{name}" + ("/versions/{version}" if kind else "")
        by = f"{name}_by_{kind}" if kind else name
        described = {
            at: _get(f"oip_model_{by}", "The tensors and the versions", "ModelMetadata"),
            f"{at}/ready": _get(f"oip_ready_{by}", "200 if it can answer", "ModelReady"),
            f"{at}/infer": _post(f"oip_infer_{by}", "Decide", "InferResponse", body),
        }
        # The same with tensors as bytes behind it, which no schema describes.
        answer = described[f"{at}/infer"]["post"]["responses"]["200"]
        answer["content"]["application/octet-stream"] = {}
        paths |= _with_parameters(described, where)
    at = f"/v2/repository/models/{name}"
    return paths | {
        f"{at}/load": _post(f"oip_load_{name}", "Serve the newest; needs an API key", "Done"),
        f"{at}/unload": _post(f"oip_unload_{name}", "Serve nothing; needs an API key", "Done"),
    }


def _with_parameters(paths: Schema, parameters: list[Schema]) -> Schema:
    return {
        path: {method: operation | {"parameters": parameters} for method, operation in item.items()}
        for path, item in paths.items()
    }


def _parameter(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _predict_examples(known: Observations) -> Schema:
    row = [0.0] * len(known.names)
    act = {"observations": row, "uniforms": 0.5, "deterministic": False}
    return {
        "rows": {"summary": "Two rows, sampled", "value": {"instances": [row, row]}},
        "columns": {"summary": "The same by columns", "value": {"inputs": [row, row]}},
        "act": {
            "summary": "The randomness given",
            "value": {"signature_name": "act", "instances": [act]},
        },
    }


def _infer_examples(known: Observations) -> Schema:
    size = len(known.names)
    tensor = {"name": "observations", "shape": [2, size], "datatype": "FP32"}
    return {
        "sampled": {
            "summary": "Two rows, sampled, to be replayed by the seed",
            "value": {
                "inputs": [{**tensor, "data": [0.0] * 2 * size}],
                "parameters": {"seed": 7},
            },
        }
    }


def _body(schema: str, examples: Schema, required: bool = True) -> Schema:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": examples}
    return {"required": required, "content": {"application/json": content}}


def _get(operation: str, summary: str, answer: str | None) -> Schema:
    return {"get": _operation(operation, summary, answer)}


def _post(
    operation: str, summary: str, answer: str | None = None, body: Schema | None = None
) -> Schema:
    described = _operation(operation, summary, answer)
    return {"post": described if body is None else described | {"requestBody": body}}


def _operation(operation: str, summary: str, answer: str | None) -> Schema:
    responses = {} if answer is None else {"200": _answer("Done.", answer)}
    return {
        "operationId": operation,
        "summary": summary,
        "responses": responses | {"default": _answer("Any problem.", "ErrorObject")},
    }


def _answer(description: str, schema: str) -> Schema:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}
