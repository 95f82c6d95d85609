"""The description is true: its examples work, it names every route, schemathesis finds nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import urllib3

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.api.openapi.description import openapi
from serving.metrics import Metrics
from serving.policy.artefact import read
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import Service, Trained


@pytest.fixture(scope="module")
def api(service: Service) -> Any:
    response = urllib3.request("GET", f"{service.url}/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    return response.json()


def referenced(api: dict[str, Any], reference: dict[str, str]) -> Any:
    """The component that a `$ref` names."""
    _, _, kind, name = reference["$ref"].split("/")
    return api["components"][kind][name]


def test_every_route_of_the_application_is_described(
    api: dict[str, Any], tmp_path: Path, trials: Trials
) -> None:
    settings, metrics = Settings(models=tmp_path), Metrics()
    app = create_api(settings, Repository(settings, metrics, trials), metrics, Keys([])).flask
    routes = {
        # As in the description: "<tfname:name>" is the model's, "<version>" a parameter.
        (
            re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).replace("{name}", "cartpole"),
            method.lower(),
        )
        for rule in app.url_map.iter_rules()
        # Not what catches the mistakes under the prefix of another protocol.
        if rule.endpoint not in ("oip._other", "tfserving.other")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, item in api["paths"].items() for method in item}
    # Pages and pictures for people, the description itself, and Prometheus's own format.
    for_people = {"/", "/docs", "/openapi.json", "/metrics"}
    assert {
        route
        for route in routes - described
        if route[0] not in for_people and not re.search(r"^/web/|\.(png|gif)$", route[0])
    } == set()
    assert described <= routes


def test_every_example_is_answered_as_described(service: Service, api: dict[str, Any]) -> None:
    asked = 0
    for path, item in api["paths"].items():
        if "requestBody" not in item.get("post", {}):
            continue
        body = referenced(api, item["post"]["requestBody"])
        answer = referenced(api, item["post"]["responses"]["200"])
        for media_type, described in body["content"].items():
            for example in described["examples"].values():
                schema = {**described["schema"], "components": api["components"]}
                jsonschema_rs.validate(schema, example["value"])
                response = urllib3.request(
                    "POST",
                    service.url + path.format(version=1, label="stable"),
                    body=json.dumps(example["value"]),
                    headers={"Content-Type": media_type},
                )
                assert response.status == 200
                schema = answer["content"]["application/json"]["schema"]
                jsonschema_rs.validate({**schema, "components": api["components"]}, response.json())
                if path.endswith("/act"):
                    assert response.json()["warnings"] == []
                asked += 1
    # At the two to act, the three to predict, the two to infer, and the index.
    assert asked == 2 * 2 + 3 * 3 + 2 * 1 + 1


def test_models_of_any_name_are_described_and_those_not_yet_served(trained: Trained) -> None:
    card = read(trained.model_dir).card
    names = ["cartpole", '"<row>\\<default>{}', "new"]
    api = openapi({name: None if name == "new" else card for name in names}, 8)
    for name in names:
        assert {f"/models/{name}/act", f"/v1/models/{name}:predict"} <= api["paths"].keys()
        operation = api["paths"][f"/models/{name}/act"]["post"]
        assert operation["operationId"] == f"act_{name}"
        (content,) = referenced(api, operation["requestBody"])["content"].values()
        assert content["schema"] == {"$ref": f"#/components/schemas/ActRequest_{name}"}
        assert f"ActRequest_{name}" in api["components"]["schemas"]
        assert ("examples" in content) == (name != "new")
    assert api["paths"]["/act"]["post"]["summary"].endswith("of cartpole")


def test_the_schema_refuses_what_the_service_refuses(api: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ActRequest_cartpole", "components": api["components"]}
    row = [0.0] * 4
    assert jsonschema_rs.is_valid(schema, {"observations": [row]})
    for wrong in [
        {},
        {"observations": []},
        {"observations": [row[:3]]},
        {"observations": [row], "observation": row},
        {"observation": [*row[:3], 3.5e38]},
        {"observation": {"cart_position": 0}},
        {"observation": row, "seed": -1},
        {"observation": row, "seed": 2**53},
        {"observation": row, "more": 1},
    ]:
        assert not jsonschema_rs.is_valid(schema, wrong), wrong


# The tensors of other protocols have rules that no schema can say, and TensorFlow Serving has
# statuses of its own.
OIP = ["--max-examples=50", "--phases=examples,coverage,fuzzing"]
OIP += ["--exclude-checks=positive_data_acceptance"]
TENSORFLOW_SERVING = [*OIP, "--exclude-checks=negative_data_rejection,unsupported_method"]


@pytest.mark.parametrize(
    "options",
    [
        ["--include-path-regex=^/(?!v[12])", "--max-examples=200"],
        ["--include-path-regex=^/v2", *OIP],
        ["--include-path-regex=^/v1", *TENSORFLOW_SERVING],
    ],
)
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path, options: list[str]) -> None:
    finished = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run"),
            *(f"{service.url}/openapi.json", "--seed=1", "--no-color", *options),
        ],
        cwd=tmp_path,  # it leaves a folder of its own there
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    assert "❌" not in finished.stdout
    assert re.search(r"\d+ generated, \d+ passed", finished.stdout)


def test_the_page_for_people_needs_no_script_and_no_other_host(service: Service) -> None:
    response = urllib3.request("GET", f"{service.url}/docs")
    page = response.data.decode()
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "<script" not in page
    # Relative, so that they work below any path that a proxy shows the service at.
    assert re.findall(r"(?:src|href)=\"(?:/|\w+:)", page) == []
    for path in ("/act", "/models/cartpole/act", "/models", "/health/ready"):
        assert f" {path}</code></h2>" in page
    stylesheet = re.findall(r'rel="stylesheet" href="([^"]+)"', page)[0]
    assert urllib3.request("GET", f"{service.url}/{stylesheet}").status == 200
