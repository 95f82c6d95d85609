"""The description is true: its examples work, it names every route, schemathesis finds nothing."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import urllib3
from msgspec.structs import replace

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.api.openapi.description import openapi
from serving.client import PolicyClient
from serving.metrics import Metrics
from serving.policy.artefact import read
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, Service, Trained, running_service

API_KEY = "a-key-of-a-test-of-the-description"


@pytest.fixture(scope="module")
def api(service: Service) -> Any:
    response = urllib3.request("GET", f"{service.url}/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    return response.json()


# They have TensorFlow Serving's errors, and no client has a use for them.
ALWAYS_REFUSED = ("tfserving.models", "tfserving.refuse")


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
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        # Not what catches the mistakes below a prefix, nor what always is one.
        if rule.endpoint not in ("oip.other", "tfserving.other", *ALWAYS_REFUSED)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, item in api["paths"].items() for method in item}
    # Pages and pictures for people, the description itself, and Prometheus's own format.
    for_people = {"/", "/docs", "/openapi.json", "/metrics"}
    routes.remove(("/v2/", "get"))  # described with "/v2"
    assert {
        route
        for route in routes - described
        if route[0] not in for_people and not re.search(r"^/web/|\.(png|gif)$", route[0])
    } == set()
    assert described <= routes


def examples(api: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """Each operation's method, its path with the examples of parameters, itself, and each body."""
    for path, item in api["paths"].items():
        for method, operation in item.items():
            parameters = [referenced(api, one) for one in operation.get("parameters", [])]
            values = {one["name"]: one["example"] for one in parameters if one["in"] == "path"}
            bodies = [None]
            if "requestBody" in operation:
                content = referenced(api, operation["requestBody"])["content"]["application/json"]
                bodies = [example["value"] for example in content["examples"].values()]
                for body in bodies:
                    validate(api, content["schema"], body)
            for body in bodies:
                yield method.upper(), path.format(**values), operation, body


def validate(api: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema_rs.validate({**schema, "components": api["components"]}, value)


def outline(value: Any) -> Any:
    """The keys of a JSON value and the types in it, but for what is of any content."""
    if isinstance(value, dict):
        of_any_content = ("policy", "signature_def")
        return {key: key in of_any_content or outline(part) for key, part in value.items()}
    if isinstance(value, list):
        return [outline(part) for part in value[:1]]
    return type(value)


def test_every_example_is_answered_as_described(service: Service, api: dict[str, Any]) -> None:
    times: Counter[str] = Counter()
    for method, path, operation, body in examples(api):
        if path.endswith(("/load", "/unload", "/feedback", "/comparison")):
            continue  # nobody may without keys, or a decision log, or a shadow
        headers = {} if body is None else {"Content-Type": "application/json"}
        encoded = None if body is None else json.dumps(body)
        response = urllib3.request(method, service.url + path, body=encoded, headers=headers)
        assert response.status == 200
        answer = response.json()
        content = referenced(api, operation["responses"]["200"])["content"]["application/json"]
        validate(api, content["schema"], answer)
        validate(api, content["schema"], content["example"])
        times[operation["operationId"]] += 1
        if times[operation["operationId"]] == 1:
            assert outline(content["example"]) == outline(answer)
        if path.endswith("/act"):
            assert answer["warnings"] == []
    assert len(times) == sum(map(len, api["paths"].values())) - 4
    assert times["act"] == times["act_by_name"] == 2
    assert times["tf_predict"] == times["tf_predict_by_label"] == 3


def test_models_of_any_name_are_described_by_the_same_routes(trained: Trained) -> None:
    card = read(trained.model_dir).card
    names = ["cartpole", '"<row>\\<default>{}', "new"]
    one = openapi({"cartpole": card}, 8, keys_are_set=False)
    for default in names:
        cards = {name: None if name == "new" else card for name in [default, *names]}
        api = openapi(cards, 8, keys_are_set=False)
        assert list(api["paths"]) == list(one["paths"])
        assert api["components"]["schemas"] == one["components"]["schemas"]
        assert api["components"]["parameters"]["Name"]["example"] == default
        assert api["paths"]["/act"]["post"]["summary"].endswith(f", {default}")
        for body in api["components"]["requestBodies"].values():
            assert ("examples" in body["content"]["application/json"]) == (default != "new")
    assert openapi({"new": None}, 8, keys_are_set=False)["paths"].keys() == one["paths"].keys()


@pytest.mark.parametrize(("low", "high", "shown"), [(0.0, 1 / 3, 0.17), (0.001, 0.004, 0.0025)])
def test_an_example_row_is_in_the_range_that_training_saw(
    trained: Trained, low: float, high: float, shown: float
) -> None:
    card = read(trained.model_dir).card
    observations = replace(card.observations, seen_low=[low] * 4, seen_high=[high] * 4)
    api = openapi({"cartpole": replace(card, observations=observations)}, 8, keys_are_set=False)
    assert f'"observations": [[{shown}, {shown}' in json.dumps(api)


def test_rewards_of_an_episode_have_no_limit_that_the_service_has_not(api: dict[str, Any]) -> None:
    rewards = api["components"]["schemas"]["EpisodeRewardsFeedback"]["properties"]["rewards"]
    assert "maxItems" not in rewards


def test_rows_of_models_that_differ_are_all_valid(trained: Trained) -> None:
    card = read(trained.model_dir).card
    named = ["cart_position", "height"]
    observations = replace(card.observations, names=named, seen_low=[0, 0], seen_high=[1, 1])
    other = replace(card, observations=observations)
    api = openapi({"cartpole": card, "other": other}, 8, keys_are_set=False)
    schema = {"$ref": "#/components/schemas/Row", "components": api["components"]}
    for row in (
        [0] * 4,
        [0] * 2,
        dict.fromkeys(card.observations.names, 0.5),
        {"cart_position": 1, "height": 0},
    ):
        assert jsonschema_rs.is_valid(schema, row)
    for row in (
        [0],
        [0] * 5,
        {"cart_position": 0},
        {"height": 0, "pole_angle": 0},
        {"cart_position": 0, "width": 0},
    ):
        assert not jsonschema_rs.is_valid(schema, row)


def test_the_schema_refuses_what_the_service_refuses(api: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ActRequest", "components": api["components"]}
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


# What no schema can say: the product of a shape, which of the headers belongs to which body, and
# TensorFlow Serving's statuses for labels, methods and numbers of rows.
SCHEMATHESIS = """
[[operations]]
include-path-regex = "^/v1/"
checks.positive_data_acceptance.enabled = false
checks.unsupported_method.enabled = false

[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false
"""


def schemathesis(folder: Path, url: str, *options: str) -> str:
    """Run it with all checks and phases, requests that follow from answers included."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(SCHEMATHESIS)
    finished = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "--no-color"),
            *("--config-file", str(configuration), "run", f"{url}/openapi.json"),
            *("--seed=1", *options),
        ],
        cwd=folder,  # it leaves a folder of its own there
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    assert "❌" not in finished.stdout
    assert re.search(r"\d+ generated, \d+ passed", finished.stdout)
    return finished.stdout


@pytest.mark.long
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    said = schemathesis(tmp_path, service.url, "--max-examples=15")
    assert re.search(r"Stateful.*API Links: +\d\d covered", said, re.DOTALL)


@pytest.mark.long
def test_schemathesis_finds_nothing_with_an_api_key(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SERVING_API_KEYS", API_KEY)
    with running_service(trained.models, tmp_path / "log") as running:
        PolicyClient(running.url, api_key=API_KEY).wait_until_ready(60)
        # Unloading would leave the other routes without a policy.
        options = ["--max-examples=100", "--exclude-path-regex=load$"]
        schemathesis(tmp_path, running.url, "-H", f"Authorization: Bearer {API_KEY}", *options)


def test_the_page_for_people_has_every_route_and_type_once(
    service: Service, api: dict[str, Any]
) -> None:
    response = urllib3.request("GET", f"{service.url}/docs")
    page = response.data.decode()
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    # Relative, so that they work below any path that a proxy shows the service at.
    assert re.findall(r"(?:src|href)=\"(?:/|\w+:)", page) == []
    anchors = re.findall(r' id="([^"]+)"', page)
    assert len(set(anchors)) == len(anchors)
    operations = [operation for item in api["paths"].values() for operation in item.values()]
    names = {operation["operationId"] for operation in operations} | api["components"][
        "schemas"
    ].keys()
    assert names <= set(anchors)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= names
    for path in api["paths"]:
        assert f"<code>{path}</code></h3>" in page


def test_the_page_for_people_reads_where_no_version_is_served(
    tmp_path: Path, trials: Trials
) -> None:
    settings, metrics = Settings(models=tmp_path), Metrics()
    app = create_api(settings, Repository(settings, metrics, trials), metrics, Keys([])).flask
    answer = app.test_client().get("/docs")
    assert answer.status_code == 200
    assert "<code>/act</code></h3>" in answer.text
    assert "<option" not in answer.text  # examples are those of the served policy
