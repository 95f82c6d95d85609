"""TensorFlow Serving's REST API.

Errors, their statuses and their words are those of its `http_rest_api_handler.cc`,
`http_rest_api_util.cc` and `json_tensor.cc`, by which its clients tell what went wrong.
"""

import re
from typing import Any

import numpy as np
from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from serving.api.body import body_bytes
from serving.api.encoding import json_response
from serving.api.tensors import Array
from serving.api.tfserving import tensors as tfjson
from serving.errors import (
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    error_object_response,
    register_error_handlers,
)
from serving.metrics import Metrics
from serving.policy.decide import Batch, decide, decide_batch
from serving.policy.observations import from_numbers
from serving.policy.savedmodel import Decision, Policy
from serving.registry.repository import Repository
from serving.schemas import VersionReport
from serving.settings import Settings

_DEFAULT_SIGNATURE = "serving_default"
_MAX_INT64 = 2**63 - 1
_METHODS = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"]
# Its words match in any case, the names of models and labels as they are.
_ANY_CASE = re.compile(
    r"(?i)/v1/models(/[^/:]+)?(?:(/versions|/labels)(/[^/:]+))?(/metadata|:[a-z]+)?"
)


class _Name(BaseConverter):
    regex = "[^/:]+"


class _Number(BaseConverter):
    regex = "[0-9]+"


class _Prefix(BaseConverter):
    regex = "[vV]1"


class _Rest(BaseConverter):
    regex = ".*"
    part_isolating = False


def tfserving_blueprint(repository: Repository, settings: Settings, metrics: Metrics) -> Blueprint:
    """Everything under `/v1/`."""
    blueprint = Blueprint("tfserving", __name__)
    register_error_handlers(blueprint, error_object_response)
    converters = {"tfname": _Name, "tfnumber": _Number, "tfprefix": _Prefix, "tfrest": _Rest}
    blueprint.record_once(lambda state: state.app.url_map.converters.update(converters))

    def models() -> Response:
        raise InvalidRequestError("Missing model name in request.")

    def status(name: str, version: str | None = None, label: str | None = None) -> Response:
        del label  # TensorFlow Serving tells of all versions, whatever the label
        number = to_number(version)
        listed = versions(name)
        if number is not None:
            listed = [report for report in listed if report.version == number]
            if not listed:
                raise NotFoundError(f"Could not find version {number} of model {name}")
        if not listed:
            raise NotFoundError(f"Could not find any versions of model {name}")
        return json_response({"model_version_status": [_status(report) for report in listed]})

    def metadata(name: str, version: str | None = None, label: str | None = None) -> Response:
        policy = find(name, to_number(version), label)
        return json_response(
            {
                "model_spec": {
                    "name": policy.name,
                    "signature_name": "",
                    "version": str(policy.version),
                },
                "metadata": {"signature_def": {"signature_def": policy.signatures}},
            }
        )

    def predict(name: str, version: str | None = None, label: str | None = None) -> Response:
        number = to_number(version)
        document = tfjson.parse(body_bytes(request))
        signature = tfjson.signature_name(document) or _DEFAULT_SIGNATURE
        policy = find(name, number, label)
        dtypes = input_dtypes(policy, signature)
        inputs, as_rows = tfjson.tensors(document, dtypes, settings.max_rows)
        outputs = run(policy, inputs)._asdict()
        if as_rows:
            return Response(tfjson.rows(outputs), content_type="application/json")
        return json_response({"outputs": outputs})

    def run(policy: Policy, inputs: dict[str, Array]) -> Decision:
        names = policy.card.observations.names
        observations = from_numbers(inputs["observations"], names, settings.max_rows)
        if "uniforms" not in inputs:
            return decide(
                policy, observations, seed=None, deterministic=False, metrics=metrics
            ).decision
        for name in ("uniforms", "deterministic"):
            if inputs[name].shape != observations.shape[:1]:
                raise InvalidRequestError(
                    f"{name}: the shape is {list(inputs[name].shape)}, "
                    f"expected [{len(observations)}] for as many observations"
                )
        with np.errstate(over="ignore"):
            uniforms = inputs["uniforms"].astype(np.float32)
        if not np.isfinite(uniforms).all():
            raise InvalidRequestError("uniforms: one is not finite")
        batch = Batch(observations, uniforms, inputs["deterministic"])
        ((decision, _),) = decide_batch(policy, batch, [len(observations)], metrics)
        return decision

    def classify(name: str, version: str | None = None, label: str | None = None) -> Response:
        return refuse("classification", "classify", name, version, label)

    def regress(name: str, version: str | None = None, label: str | None = None) -> Response:
        return refuse("regression", "regress", name, version, label)

    def refuse(
        kind: str, method: str, name: str, version: str | None, label: str | None
    ) -> Response:
        """Answer as for any model that has only signatures to predict by."""
        number = to_number(version)
        document = tfjson.parse(body_bytes(request))
        signature = tfjson.signature_name(document) or _DEFAULT_SIGNATURE
        tfjson.require_examples(document)
        policy = find(name, number, label)
        if signature not in policy.signatures:
            raise InvalidRequestError(f"No signature was found with the name: {signature}")
        raise InvalidRequestError(
            f"Expected {kind} signature method_name to be tensorflow/serving/{method}. "
            f"Was: {policy.signatures[signature]['method_name']}"
        )

    def find(name: str, version: int | None, label: str | None) -> Policy:
        try:
            return repository.policy(name, version=version, label=label)
        except (NotFoundError, NotReadyError) as error:
            if label is not None:
                reason = f"Unrecognized servable version label: {label}"
                raise InvalidRequestError(f"{reason} ({error.detail})") from error
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            reason = f"Servable not found for request: {which}"
            raise NotFoundError(f"{reason} ({error.detail})") from error

    def versions(name: str) -> list[VersionReport]:
        """Those that were tried: they are served, labelled or refused."""
        try:
            reports = repository.report(name).versions
        except NotFoundError:
            return []
        return [report for report in reports if report.state != "waiting"]

    def other(prefix: str, rest: str) -> Any:
        """What no rule takes as it is: words in another case, preflights and mistakes."""
        if request.method == "OPTIONS":
            if not re.search("https?://", request.headers.get("Origin", "")):
                raise InvalidRequestError("Origin header is missing in CORS preflight")
            return Response(content_type="application/json")
        found = _ANY_CASE.fullmatch(f"/{prefix}/{rest}")
        if found is not None:
            name, kind, which, what = (part or "" for part in found.groups())
            path = f"/v1/models{name}{kind.lower()}{which}{what.lower()}"
            try:
                endpoint, parts = current_app.url_map.bind("").match(path, request.method)
            except HTTPException:
                endpoint = request.endpoint
            if endpoint != request.endpoint:
                return current_app.view_functions[endpoint](**parts)
        raise InvalidRequestError(f"Malformed request: {request.method} {request.path}")

    def add(rule: str, view: Any, methods: list[str]) -> None:
        # Without Flask's own answer to OPTIONS.
        blueprint.add_url_rule(
            rule, view_func=view, methods=methods, provide_automatic_options=False
        )

    add("/v1/models", models, ["GET"])
    for which in ("", "/versions/<tfnumber:version>", "/labels/<tfname:label>"):
        model = f"/v1/models/<tfname:name>{which}"
        add(model, status, ["GET"])
        add(f"{model}/metadata", metadata, ["GET"])
        add(f"{model}:predict", predict, ["POST"])
        add(f"{model}:classify", classify, ["POST"])
        add(f"{model}:regress", regress, ["POST"])
    add("/<tfprefix:prefix>/<tfrest:rest>", other, _METHODS)
    return blueprint


def to_number(version: str | None) -> int | None:
    """The version in a path.

    Raises:
        InvalidRequestError: no 64 bits hold it.
    """
    number = None if version is None else int(version)
    if number is not None and number > _MAX_INT64:
        raise InvalidRequestError(f"Failed to convert version: {version} to numeric.")
    return number


def input_dtypes(policy: Policy, signature: str) -> dict[str, str]:
    """The inputs of a signature, and "float" or "bool" for each.

    Raises:
        InvalidRequestError: there is no such signature to predict by.
    """
    if signature not in policy.signatures or not policy.signatures[signature]["inputs"]:
        raise InvalidRequestError(
            f'Serving signature name: "{signature}" not found in signature def'
        )
    return {
        name: tensor["dtype"].removeprefix("DT_").lower()
        for name, tensor in sorted(policy.signatures[signature]["inputs"].items())
    }


def _status(report: VersionReport) -> dict[str, Any]:
    is_available = report.state != "refused"
    return {
        "version": str(report.version),
        "state": "AVAILABLE" if is_available else "END",
        "status": {
            "error_code": "OK" if is_available else "FAILED_PRECONDITION",
            "error_message": "" if is_available else report.reason,
        },
    }
