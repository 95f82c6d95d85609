"""Versions, labels, loading and unloading in the protocols of others."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
from flask import Flask

from serving.api.oip.models import InferenceModels
from serving.api.reports import models_blueprint
from serving.errors import NotFoundError
from serving.metrics import Metrics
from serving.record.shadow import Shadows
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import publish
from tests.conformance.conftest import expect_error
from tests.conftest import Service, Trained, running_service, wait_until
from tests.test_act import ROW

KEY = "a-key-that-is-long-enough"
INFER = {"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}
INSTANCES = {"instances": [ROW]}


class Client:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
            retries=False,
        )

    def index(self) -> list[tuple[str, str, str]]:
        entries = self.ask("POST", "/v2/repository/index").json()
        return [(entry["name"], entry["version"], entry["state"]) for entry in entries]


@pytest.fixture(scope="module")
def models(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pinned` is the default model; `cartpole` has a labelled and a damaged version."""
    models = tmp_path_factory.mktemp("repository")
    for name, versions in [("pinned", [1]), ("cartpole", [1, 2]), ("unwritable", [1])]:
        (models / name).mkdir()
        (models / name).chmod(0o777)  # the service, maybe of another user, writes the selection
        for version in versions:
            publish(trained.model_dir, models / name / str(version))
    publish(
        trained.model_dir,
        models / "cartpole" / "3",
        lambda folder: (folder / "saved_model.pb").write_bytes(b""),
    )
    (models / "cartpole" / "serve.json").write_text('{"labels": {"canary": 1}}')
    # For root too, a file cannot be put in the place of a folder.
    (models / "unwritable" / "serve.json").mkdir()
    return models


@pytest.fixture(scope="module")
def client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(KEY)
    options = ["--name", "pinned", "--pin", "1", "--api-keys-file", str(folder / "keys")]
    # One worker: the others follow within a poll.
    with running_service(models, folder / "log", "--workers", "1", *options) as service:
        client = Client(service.url)
        wait_until(lambda: is_live(client))
        # Models and labels are loaded one after the other.
        good = {("pinned", "1"), ("cartpole", "2"), ("cartpole", "1"), ("unwritable", "1")}
        wait_until(lambda: {(name, number, "READY") for name, number in good} <= {*client.index()})
        yield client


def is_live(client: Client) -> bool:
    try:
        return client.ask("GET", "/v2/health/live").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_versions_and_labels_are_asked_by_path(client: Client) -> None:
    for at, version in [
        ("", "2"),
        ("/labels/stable", "2"),
        ("/labels/canary", "1"),
        ("/versions/1", "1"),
        ("/versions/2", "2"),
    ]:
        path = f"/v1/models/cartpole{at}"
        metadata = client.ask("GET", f"{path}/metadata").json()
        assert metadata["model_spec"]["version"] == version
        assert client.ask("POST", f"{path}:predict", INSTANCES).status == 200
    for at, version in [("", "2"), ("/versions/1", "1"), ("/versions/2", "2")]:
        answer = client.ask("POST", f"/v2/models/cartpole{at}/infer", INFER).json()
        assert answer["model_version"] == version
    assert client.ask("GET", "/v2/models/cartpole").json()["versions"] == ["2", "1"]
    answer = client.ask("POST", "/v1/models/cartpole/versions/3:predict", INSTANCES)
    expect_error(answer, 404, "Servable not found for request: Specific(cartpole, 3)")


def test_a_refused_version_has_ended_with_the_reason(client: Client) -> None:
    answer = client.ask("GET", "/v1/models/cartpole").json()["model_version_status"]
    assert [(state["version"], state["state"]) for state in answer] == [
        ("3", "END"),
        ("2", "AVAILABLE"),
        ("1", "AVAILABLE"),
    ]
    assert answer[0]["status"] == {
        "error_code": "FAILED_PRECONDITION",
        "error_message": "saved_model.pb does not match its checksum on the card",
    }


def test_the_index_tells_of_every_version_or_of_those_that_answer(client: Client) -> None:
    good = [("cartpole", "2", "READY"), ("cartpole", "1", "READY")]
    assert client.index() == [
        ("pinned", "1", "READY"),
        ("cartpole", "3", "UNAVAILABLE"),
        *good,
        ("unwritable", "1", "READY"),
    ]
    ready = client.ask("POST", "/v2/repository/index", {"ready": True}).json()
    assert ("cartpole", "3", "UNAVAILABLE") not in {
        (entry["name"], entry["version"], entry["state"]) for entry in ready
    }
    assert len(ready) == 4
    expect_error(client.ask("POST", "/v2/repository/index", {"ready": 1}), 400)


def test_a_model_is_unloaded_and_loaded(client: Client, models: Path) -> None:
    repository = "/v2/repository/models/cartpole"
    assert client.ask("POST", f"{repository}/unload", {"parameters": {}}).status == 200
    try:
        assert ("cartpole", "2", "UNAVAILABLE") in client.index()
        unloaded = "no version of cartpole is served: it is unloaded"
        expect_error(client.ask("POST", "/v2/models/cartpole/infer", INFER), 503, unloaded)
        expect_error(client.ask("GET", "/v2/models/cartpole/ready"), 503, unloaded)
        answer = client.ask("POST", "/v1/models/cartpole:predict", INSTANCES)
        expect_error(answer, 404, "Servable not found for request: Latest(cartpole)")
        # What is labelled stays, and so do the labels.
        answer = client.ask("POST", "/v1/models/cartpole/labels/canary:predict", INSTANCES)
        assert answer.status == 200
        serve = json.loads((models / "cartpole" / "serve.json").read_text())
        assert serve == {"serve": "nothing", "labels": {"canary": 1}}
    finally:
        assert client.ask("POST", f"{repository}/load").status == 200
    assert ("cartpole", "2", "READY") in client.index()
    assert client.ask("POST", "/v2/models/cartpole/infer", INFER).status == 200
    serve = json.loads((models / "cartpole" / "serve.json").read_text())
    assert serve == {"serve": "newest", "labels": {"canary": 1}}


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_what_cannot_be_loaded_or_unloaded_is_told_why(client: Client, verb: str) -> None:
    for name, status, reason in [
        ("no", 404, "no model is called 'no'"),
        ("pinned", 409, "pinned: the service was started with version 1"),
        ("unwritable", 409, "serve.json"),
    ]:
        answer = client.ask("POST", f"/v2/repository/models/{name}/{verb}")
        expect_error(answer, status, reason)
    assert ("pinned", "1", "READY") in client.index()


@pytest.mark.parametrize("name", ["config", "file:1/model.savedmodel"])
def test_a_model_is_loaded_only_as_it_is_on_the_disk(client: Client, name: str) -> None:
    path = "/v2/repository/models/cartpole/load"
    refused = client.ask("POST", path, {"parameters": {name: "x"}})
    expect_error(refused, 400, f"parameters: {name!r} is not supported")
    bodies: list[Any] = [None, {}, {"parameters": None}, {"parameters": {}}]
    for body in bodies:
        assert client.ask("POST", path, body).status == 200


def test_every_route_but_health_needs_the_key(client: Client) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert urllib3.request("GET", client.url + path).status == 200
    for method, path in [
        ("GET", "/v1/models/cartpole"),
        ("POST", "/v1/models/cartpole:predict"),
        ("GET", "/v1/no/such/path"),
        ("GET", "/v2"),
        ("POST", "/v2/models/cartpole/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/cartpole/unload"),
        ("GET", "/v2/no/such/path"),
    ]:
        answer = urllib3.request(method, client.url + path, retries=False)
        expect_error(answer, 401, "an API key is needed")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_without_keys_nobody_loads_or_unloads(service: Service, verb: str) -> None:
    answer = Client(service.url).ask("POST", f"/v2/repository/models/cartpole/{verb}")
    expect_error(answer, 403, "only where API keys are set")
    assert ("cartpole", "1", "READY") in Client(service.url).index()


def test_models_may_come_and_go_while_requests_are_answered(tmp_path: Path, trials: Trials) -> None:
    for number in range(20):
        (tmp_path / "full" / f"model_{number}").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    settings, metrics = Settings(models=tmp_path / "models"), Metrics()
    settings.models.symlink_to("empty")
    repository = Repository(settings, metrics, trials)
    models = InferenceModels(repository, settings, metrics.statistics)
    app = Flask(__name__)
    app.register_blueprint(models_blueprint(repository, Shadows(repository, metrics)))

    def come_and_go() -> None:
        for name in ("full", "empty"):
            (tmp_path / "link").symlink_to(name)
            (tmp_path / "link").replace(settings.models)
            time.sleep(0.002)

    def ask_for_another() -> None:
        with pytest.raises(NotFoundError):
            repository.policy("another")

    def list_models() -> None:
        assert app.test_client().get("/models").status_code == 200

    def repeat(call: Callable[[], object]) -> None:
        while time.monotonic() < end:
            call()

    end = time.monotonic() + 3
    listings = (list_models, partial(models.index, only_ready=False), models.all_statistics)
    calls = (come_and_go, repository.refresh, ask_for_another, *listings)
    with ThreadPoolExecutor(len(calls)) as threads:
        failures = [one.exception() for one in [threads.submit(repeat, call) for call in calls]]
    assert failures == [None] * len(calls)


def test_a_model_that_is_not_loaded_yet_is_not_ready(tmp_path: Path, trained: Trained) -> None:
    models = tmp_path / "models"
    models.mkdir()
    with running_service(models, tmp_path / "log", "--workers", "1") as service:
        client = Client(service.url)
        wait_until(lambda: is_live(client))
        for path in ("/v2/health/ready", "/v2/models/cartpole/ready", "/v2/models/cartpole"):
            answer = client.ask("GET", path)
            expect_error(answer, 503, "no version of cartpole is served")
            assert answer.headers["Retry-After"] == "1"
        expect_error(client.ask("GET", "/v1/models/cartpole"), 404, "Could not find any versions")
        answer = client.ask("POST", "/v1/models/cartpole/labels/stable:predict", INSTANCES)
        expect_error(answer, 400, "Unrecognized servable version label: stable")
        shutil.copytree(trained.models, models, dirs_exist_ok=True)
        wait_until(lambda: client.ask("GET", "/v2/health/ready").status == 200)
