"""What the page `/docs` shows of the description, route by route.

docs/architecture.md says why it is none of the viewers that packages ship.
"""

import re
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from markupsafe import Markup, escape

from serving.api.openapi.description import Schema, to_json


class Route(NamedTuple):
    """A method of a path; references to parameters and bodies are resolved."""

    path: str
    method: str
    operation: Schema
    parameters: list[Schema]
    body: Schema | None

    @property
    def is_of_a_version(self) -> bool:
        """Whether there is the same route without a version or label."""
        return "{version}" in self.path or "{label}" in self.path

    @property
    def example_address(self) -> str:
        """The address with the examples of its parameters, of a service with the default port."""
        path = self.path
        for parameter in self.parameters:
            if parameter["in"] == "path":
                value = quote(str(parameter["example"]), safe="")
                path = path.replace(f"{{{parameter['name']}}}", value)
        return f"http://127.0.0.1:8000{path}"

    @property
    def examples(self) -> list[Schema]:
        """Bodies; none where no version is served."""
        if self.body is None:
            return []
        return list(self.body["content"]["application/json"].get("examples", {}).values())


def page_content(api: Schema) -> dict[str, Any]:
    """What the template `docs.html` needs: the description and functions."""
    routes = [
        _route(api, path, method, operation)
        for path, item in api["paths"].items()
        for method, operation in item.items()
    ]
    return {
        "api": api,
        "groups": [
            (tag, [route for route in routes if tag["name"] in route.operation["tags"]])
            for tag in api["tags"]
        ],
        "component": partial(_referenced, api),
        "name_in": _referenced_name,
        "to_json": to_json,
        "with_code": _with_code,
    }


def _route(api: Schema, path: str, method: str, operation: Schema) -> Route:
    parameters = [_referenced(api, reference) for reference in operation.get("parameters", [])]
    body = _referenced(api, operation["requestBody"]) if "requestBody" in operation else None
    return Route(path, method.upper(), operation, parameters, body)


def _referenced_name(reference: Schema) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _referenced(api: Schema, reference: Schema) -> Schema:
    """The component that a `$ref` is to."""
    _, _, kind, name = reference["$ref"].split("/")
    component: Schema = api["components"][kind][name]
    return component


def _with_code(text: str) -> Markup:
    """A description, of whose Markdown only backticks are used."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped
