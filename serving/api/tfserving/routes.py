"""TensorFlow Serving's REST API.

Errors, their statuses and their words are those of its `http_rest_api_handler.cc`,
`http_rest_api_util.cc` and `json_tensor.cc`, by which its clients tell what went wrong.
"""

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from serving.api.body import BodyReader
from serving.api.messages import from_flask, json_response
from serving.api.tfserving import tensors
from serving.api.tfserving.predict import DEFAULT_SIGNATURE, find, to_number
from serving.errors import InvalidRequestError, NotFoundError
from serving.registry.repository import Repository
from serving.schemas import VersionReport

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


CONVERTERS = {"tfname": _Name, "tfnumber": _Number, "tfprefix": _Prefix, "tfrest": _Rest}


class TensorFlowServingRoutes:
    """Everything under `/v1/` that is no decision."""

    def __init__(self, repository: Repository, bodies: BodyReader) -> None:
        self._repository = repository
        self._bodies = bodies

    def blueprint(self) -> Blueprint:
        """The routes; the application has `CONVERTERS`."""
        blueprint = Blueprint("tfserving", __name__)

        def add(method: str, rule: str, view: Callable[..., Any]) -> None:
            # Without Flask's own answer to OPTIONS.
            blueprint.add_url_rule(
                rule, view_func=view, methods=method.split(), provide_automatic_options=False
            )

        add("GET", "/v1/models", self.models)
        for which in ("", "/versions/<tfnumber:version>", "/labels/<tfname:label>"):
            model = f"/v1/models/<tfname:name>{which}"
            add("GET", model, self.status)
            add("GET", f"{model}/metadata", self.metadata)
            add("POST", f"{model}:classify", self.classify)
            add("POST", f"{model}:regress", self.regress)
        add("DELETE GET OPTIONS PATCH POST PUT", "/<tfprefix:prefix>/<tfrest:rest>", self.other)
        return blueprint

    def models(self) -> Response:
        """There is no list in this protocol."""
        raise InvalidRequestError("Missing model name in request.")

    def status(self, name: str, version: str | None = None, label: str | None = None) -> Response:
        """The states of a model's versions."""
        del label  # TensorFlow Serving reports all versions, whatever the label
        number = to_number(version)
        listed = self._versions(name)
        if number is not None:
            listed = [report for report in listed if report.version == number]
            if not listed:
                raise NotFoundError(f"Could not find version {number} of model {name}")
        if not listed:
            raise NotFoundError(f"Could not find any versions of model {name}")
        return json_response({"model_version_status": [_status(report) for report in listed]})

    def metadata(self, name: str, version: str | None = None, label: str | None = None) -> Response:
        """The signatures of a version."""
        policy = find(self._repository, name, to_number(version), label)
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

    def classify(self, name: str, version: str | None = None, label: str | None = None) -> Response:
        """Refuse: a policy has no signature to classify by."""
        return self._refuse("classification", "classify", name, version, label)

    def regress(self, name: str, version: str | None = None, label: str | None = None) -> Response:
        """Refuse: a policy has no signature to regress by."""
        return self._refuse("regression", "regress", name, version, label)

    def _refuse(
        self, kind: str, method: str, name: str, version: str | None, label: str | None
    ) -> Response:
        number = to_number(version)
        document = tensors.parse(self._bodies.read(from_flask(request)))
        signature = tensors.signature_name(document) or DEFAULT_SIGNATURE
        tensors.require_examples(document)
        policy = find(self._repository, name, number, label)
        if signature not in policy.signatures:
            raise InvalidRequestError(f"No signature was found with the name: {signature}")
        raise InvalidRequestError(
            f"Expected {kind} signature method_name to be tensorflow/serving/{method}. "
            f"Was: {policy.signatures[signature]['method_name']}"
        )

    def _versions(self, name: str) -> list[VersionReport]:
        """Those that were tried: they are served, labelled or refused."""
        try:
            reports = self._repository.report(name).versions
        except NotFoundError:
            return []
        return [report for report in reports if report.state != "waiting"]

    def other(self, prefix: str, rest: str) -> Any:
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
