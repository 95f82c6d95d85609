"""What client generators need of the description (docs/protocols.md), and what it says of errors.

Each rule is here because a generator made a client without it that did not compile or did not ask
what it was told to.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.api.app import create_api
from serving.api.exchange import HEALTH
from serving.api.keys import Keys, read_keys
from serving.api.openapi.description import openapi
from serving.metrics import Metrics
from serving.policy.artefact import read
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import Trained

KEY = "a-key-of-a-test-of-the-rules"
Description = dict[str, Any]


@pytest.fixture(scope="module", params=["open", "with keys", "not ready"])
def api(request: pytest.FixtureRequest, trained: Trained) -> Description:
    card = None if request.param == "not ready" else read(trained.model_dir).card
    return openapi({"cartpole": card}, 8, keys_are_set=request.param == "with keys")


def schemas(node: Any, place: str = "#", *, is_schema: bool = False) -> Iterator[tuple[str, Any]]:
    """Every schema of a description with its place; examples and names of properties are none."""
    if isinstance(node, list):
        for index, part in enumerate(node):
            yield from schemas(part, f"{place}/{index}", is_schema=is_schema)
    if not isinstance(node, dict):
        return
    if is_schema:
        yield place, node
    for key, part in node.items():
        if key in ("schema", "items", "additionalProperties", "anyOf", "oneOf"):
            yield from schemas(part, f"{place}/{key}", is_schema=True)
        elif key in ("schemas", "properties"):
            for name, schema in part.items():
                yield from schemas(schema, f"{place}/{key}/{name}", is_schema=True)
        elif key not in ("example", "examples"):
            yield from schemas(part, f"{place}/{key}")


def is_ambiguous(schema: Any) -> bool:
    return bool({"oneOf", "anyOf"} & schema.keys() and {"properties", "required"} & schema.keys())


RULES: dict[str, Callable[[Any], bool]] = {
    "an enum has a type": lambda schema: "enum" not in schema or "type" in schema,
    "an array has items": lambda schema: schema.get("type") != "array" or "items" in schema,
    "an object has properties, or says of what type": lambda schema: (
        schema.get("type") != "object"
        or bool({"properties", "additionalProperties"} & schema.keys())
    ),
    "no default is null": lambda schema: schema.get("default", 0) is not None,
    "no oneOf stands beside properties": lambda schema: not is_ambiguous(schema),
    "a union has at least two members": lambda schema: all(
        len(schema[key]) > 1 for key in {"oneOf", "anyOf"} & schema.keys()
    ),
    "a number has a format": lambda schema: (
        schema.get("type") not in ("integer", "number") or "format" in schema
    ),
    "no enum is of booleans": lambda schema: True not in schema.get("enum", []),
    # JSON Schema's integer is such a number, and a union of both is a class in most languages.
    "no number is an integer by its multiple": lambda schema: "multipleOf" not in schema,
}
BROKEN: dict[str, Any] = {
    "an enum has a type": {"enum": ["live"]},
    "an array has items": {"type": "array"},
    "an object has properties, or says of what type": {"type": "object"},
    "no default is null": {"type": "string", "default": None},
    "no oneOf stands beside properties": {"properties": {}, "oneOf": []},
    "a union has at least two members": {"anyOf": [{"type": "string"}]},
    "a number has a format": {"type": "integer"},
    "no enum is of booleans": {"type": "boolean", "enum": [True]},
    "no number is an integer by its multiple": {"type": "number", "multipleOf": 1},
}


@pytest.mark.parametrize("rule", RULES)
def test_every_schema_keeps(rule: str, api: Description) -> None:
    found = dict(schemas(api))
    assert len(found) > 100
    assert [place for place, schema in found.items() if not RULES[rule](schema)] == []


@pytest.mark.parametrize("rule", RULES)
def test_a_schema_that_breaks_a_rule_is_found(rule: str, api: Description) -> None:
    broken = json.loads(json.dumps(api))
    broken["components"]["schemas"]["Health"]["properties"]["wrong"] = BROKEN[rule]
    places = [place for place, schema in schemas(broken) if not RULES[rule](schema)]
    assert places == ["#/components/schemas/Health/properties/wrong"]


def test_no_property_is_called_as_its_schema(api: Description) -> None:
    # openapi-python-client gives both the same variable.
    for name, schema in api["components"]["schemas"].items():
        properties = [field.replace("_", "") for field in schema.get("properties", {})]
        assert name.lower() not in properties


def test_no_answer_is_called_as_another_ones_schema(api: Description) -> None:
    # orval calls the type of an answer by the component's name and "Response".
    for name, response in api["components"]["responses"].items():
        assert f"{name}Response" not in api["components"]["schemas"], response


def test_every_component_is_referenced_and_every_reference_resolves(api: Description) -> None:
    text = json.dumps(api)
    for kind, components in api["components"].items():
        for name in components:
            reference = "security" if kind == "securitySchemes" else f'"#/components/{kind}/{name}"'
            assert reference in text
    for part in text.split('"$ref": "#/components/')[1:]:
        kind, name = part.partition('"')[0].split("/")
        assert name in api["components"][kind]


def test_clients_ask_the_host_that_described_itself(api: Description) -> None:
    assert api["servers"] == [{"url": "/"}]


def test_operations_have_names_and_a_group(api: Description) -> None:
    operations = [operation for item in api["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    groups = {tag["name"] for tag in api["tags"]}
    assert {tag for operation in operations for tag in operation["tags"]} == groups


def test_binary_bodies_are_described(api: Description) -> None:
    schema = {"$ref": "#/components/schemas/BinaryTensors"}
    for kind, name in (("requestBodies", "Infer"), ("responses", "InferResponse")):
        content = api["components"][kind][name]["content"]
        assert content["application/octet-stream"]["schema"] == schema
    binary = api["components"]["schemas"]["BinaryTensors"]
    assert (binary["type"], binary["format"]) == ("string", "binary")
    header = api["components"]["parameters"]["LengthOfJson"]
    assert header["name"] in api["components"]["responses"]["InferResponse"]["headers"]


def client(tmp_path: Path, trials: Trials, keys: Keys) -> FlaskClient:
    settings, metrics = Settings(models=tmp_path), Metrics()
    repository = Repository(settings, metrics, trials)
    return create_api(settings, repository, metrics, keys).flask.test_client()


def filled_in(path: str) -> str:
    return path.format(name="cartpole", version=1, label="stable")


@pytest.mark.parametrize("keys_are_set", [False, True])
def test_keys_are_described_where_they_are_needed(
    tmp_path: Path, trials: Trials, keys_are_set: bool
) -> None:
    (tmp_path / "keys").write_text(KEY)
    keys = read_keys(tmp_path / "keys" if keys_are_set else None)
    asking = client(tmp_path, trials, keys)
    authorization = {"Authorization": f"Bearer {KEY}"}
    api = json.loads(asking.get("/openapi.json", headers=authorization).data)
    schemes = api["components"].get("securitySchemes", {})
    expected = [("http", "bearer")] if keys_are_set else []
    assert [(one["type"], one["scheme"]) for one in schemes.values()] == expected
    for path, item in api["paths"].items():
        for method, operation in item.items():
            answer = asking.open(filled_in(path), method=method.upper())
            assert (answer.status_code == 401) == ("401" in operation["responses"])
            security = operation.get("security", api["security"])
            assert security == ([] if answer.status_code != 401 else [{"ApiKey": []}])
            assert ("401" in operation["responses"]) == (keys_are_set and path not in HEALTH)
            if answer.status_code == 401:
                _, _, kind, name = operation["responses"]["401"]["$ref"].split("/")
                described = api["components"][kind][name]
                assert answer.content_type in described["content"]
                assert described["headers"].keys() <= set(answer.headers.keys())


@pytest.mark.parametrize("method", ["DELETE", "GET", "PATCH", "POST", "PUT", "TRACE", "UNKNOWN"])
def test_a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has(
    tmp_path: Path, trials: Trials, method: str
) -> None:
    asking = client(tmp_path, trials, Keys([]))
    api = json.loads(asking.get("/openapi.json").data)
    for path, item in api["paths"].items():
        if method.lower() in item:
            continue
        answer = asking.open(filled_in(path), method=method)
        if path.startswith("/v1/"):
            # TensorFlow Serving has no 405.
            assert answer.status_code == 400
            assert json.loads(answer.data)["error"].startswith(f"Malformed request: {method} ")
            continue
        assert answer.status_code == 405
        allowed = {name.upper() for name in item} | {"OPTIONS"}
        allowed |= {"HEAD"} if "get" in item else set()
        assert set(answer.headers["Allow"].split(", ")) == allowed
        for operation in item.values():
            _, _, kind, name = operation["responses"]["405"]["$ref"].split("/")
            assert answer.content_type in api["components"][kind][name]["content"]
            assert "Allow" in api["components"][kind][name]["headers"]
        for other in allowed:
            assert asking.open(filled_in(path), method=other).status_code != 405
    # Nothing is there for any method.
    assert asking.open("/v2/nothing", method=method).status_code == 404
