"""TensorFlow Serving's REST API.

Errors have the statuses and messages of its `http_rest_api_handler.cc`, `http_rest_api_util.cc`
and `json_tensor.cc`, because its clients recognise errors by them.
"""

import re
from functools import partial
from typing import Any

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from serving.api.body import BodyReader
from serving.api.decisions import PARTS
from serving.api.messages import add_catch_all, from_flask, json_response
from serving.api.tfserving.explain import wrong_value
from serving.api.tfserving.models import ServingModels
from serving.api.tfserving.predict import to_number
from serving.api.tfserving.prediction import find
from serving.api.tfserving.tensors import parse
from serving.errors import InvalidRequestError
from serving.registry.repository import Repository

_TASKS = {"classify": "classification", "regress": "regression"}
# Keywords match in any case; names of models and labels are case-sensitive.
_ANY_CASE = re.compile(
    r"(?i)/v1/models(/[^/:]+)?(?:(/versions|/labels)(/[^/:]+))?(/metadata|:[a-z]+)?"
)


class _Name(BaseConverter):
    regex = PARTS["tfname"]


class _Number(BaseConverter):
    regex = PARTS["tfnumber"]


class _Prefix(BaseConverter):
    regex = "[vV]1"


class _Rest(BaseConverter):
    regex = ".*"
    part_isolating = False


CONVERTERS = {"tfname": _Name, "tfnumber": _Number, "tfprefix": _Prefix, "tfrest": _Rest}


class TensorFlowServingRoutes:
    """Everything under `/v1/` that is not a decision."""

    def __init__(self, repository: Repository, bodies: BodyReader) -> None:
        self._repository = repository
        self._models = ServingModels(repository)
        self._bodies = bodies

    def blueprint(self) -> Blueprint:
        """The routes; the application needs `CONVERTERS`."""
        blueprint = Blueprint("tfserving", __name__)
        # `other` answers OPTIONS, as TensorFlow Serving does.
        add = partial(blueprint.add_url_rule, provide_automatic_options=False)
        add("/v1/models", view_func=self.models)
        for which in ("", "/versions/<tfnumber:version>", "/labels/<tfname:label>"):
            model = f"/v1/models/<tfname:name>{which}"
            add(model, view_func=self.status)
            add(f"{model}/metadata", view_func=self.metadata)
            for method in _TASKS:
                rule, given = f"{model}:{method}", {"method": method}
                add(rule, view_func=self.refuse, methods=["POST"], defaults=given)
        add_catch_all(blueprint, ["/<tfprefix:prefix>/<tfrest:rest>"], self.other)
        return blueprint

    def models(self) -> Response:
        """Refuse: this protocol does not list models."""
        raise InvalidRequestError("Missing model name in request.")

    def status(self, name: str, version: str | None = None, label: str | None = None) -> Response:
        """The states of a model's versions."""
        del label  # TensorFlow Serving reports all versions, whatever the label
        return json_response(self._models.status(name, to_number(version)))

    def metadata(self, name: str, version: str | None = None, label: str | None = None) -> Response:
        """The signatures of a version."""
        return json_response(self._models.metadata(name, to_number(version), label))

    def refuse(
        self, method: str, name: str, version: str | None = None, label: str | None = None
    ) -> Response:
        """Refuse: a policy has no signature to classify or regress with."""
        number = to_number(version)
        with self._bodies.opened(from_flask(request)) as body:
            document, signature = parse(body)
            examples = document.get("examples")
            if "examples" not in document:
                reason = "When method is classify, key 'examples' is expected and was not found"
                raise wrong_value(document, reason)
            if not isinstance(examples, list):
                raise wrong_value(document, "Expecting 'examples' value to be an list/array")
            if not examples:
                raise wrong_value(document, "'examples' value is an empty array")
        policy = find(self._repository, name, number, label).policy
        if signature not in policy.signatures:
            raise InvalidRequestError(f"No signature was found with the name: {signature}")
        raise InvalidRequestError(
            f"Expected {_TASKS[method]} signature method_name to be tensorflow/serving/{method}. "
            f"Was: {policy.signatures[signature]['method_name']}"
        )

    def other(self, prefix: str, rest: str) -> Any:
        """Answer what no other rule takes: keywords in another case, preflights and mistakes."""
        if request.method == "OPTIONS":
            if not re.search("https?://", request.headers.get("Origin", "")):
                raise InvalidRequestError("Origin header is missing in CORS preflight")
            return Response(content_type="application/json")
        found = _ANY_CASE.fullmatch(f"/{prefix}/{rest}")
        if found is not None:
            name, kind, which, what = found.groups(default="")
            path = f"/v1/models{name}{kind.lower()}{which}{what.lower()}"
            try:
                endpoint, parts = current_app.url_map.bind("").match(path, request.method)
            except HTTPException:
                endpoint = request.endpoint
            if endpoint != request.endpoint:
                return current_app.view_functions[endpoint](**parts)
        raise InvalidRequestError(f"Malformed request: {request.method} {request.path}")
