"""Which version is served, and why, mostly over real HTTP."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import urllib3

from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import edit_card, publish, reseal, unsolve
from tests.conftest import Service, Trained, running_service, wait_until


def get(service: Service, path: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", service.url + path, retries=False)


def ready_version(service: Service) -> int | None:
    response = get(service, "/health/ready")
    version: int | None = response.json()["model"]["version"] if response.status == 200 else None
    return version


def report(service: Service) -> list[tuple[int, str, str]]:
    (model,) = get(service, "/models").json()["models"]
    return [(v["version"], v["state"], v["reason"]) for v in model["versions"]]


def damage_graph(model_dir: Path) -> None:
    (model_dir / "saved_model.pb").write_bytes(b"not a graph")


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """A models folder with one good version."""
    return shutil.copytree(trained.models, tmp_path / "models")


def test_health_and_models_of_a_ready_service(service: Service, trained: Trained) -> None:
    assert get(service, "/health/live").json() == {"status": "live"}
    ready = get(service, "/health/ready")
    assert ready.status == 200
    digest = ready.json()["model"].pop("digest")
    assert ready.json() == {
        "status": "ready",
        "model": {"name": "cartpole", "version": 1, "digest": digest},
    }
    assert re.fullmatch("[0-9a-f]{12}", digest)
    served = {
        "version": 1,
        "state": "served",
        "reason": "the newest version that passes every check is served",
        "digest": digest,
        "share": 1.0,
    }
    report = {"name": "cartpole", "default": True, "version": 1, "versions": [served]}
    report["selection"] = selection = get(service, "/models/cartpole").json()["selection"]
    assert re.fullmatch("[0-9a-f]{12}", selection)
    assert get(service, "/models").json() == {"models": [report]}
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    assert get(service, "/models/cartpole").json() == report | {"policy": card}
    missing = get(service, "/models/other")
    assert missing.status == 404
    assert missing.json()["detail"] == "no model is called 'other'; there are cartpole"


# Envoy sends a service that answers with it no more requests until a health check succeeds.
ENVOY_HEALTH_CHECK_FAIL = "X-Envoy-Immediate-Health-Check-Fail"


def test_without_a_model_it_is_alive_and_not_ready_until_one_appears(
    trained: Trained, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    (models / "other").mkdir(parents=True)
    with running_service(models, tmp_path / "log", "--poll-seconds", "0.1") as service:
        wait_until(lambda: alive(service))
        of_other = urllib3.request(
            "POST", f"{service.url}/models/other/act", json={"observation": [0] * 4}, retries=False
        )
        assert of_other.status == 503
        assert ENVOY_HEALTH_CHECK_FAIL not in of_other.headers
        (models / "other").rmdir()
        wait_until(lambda: get(service, "/models/other").status == 404)
        not_ready: dict[str, Any] = {"name": "cartpole", "default": True, "version": None}
        not_ready |= {"versions": [], "selection": ""}
        assert get(service, "/models").json() == {"models": [not_ready]}
        assert get(service, "/models/cartpole").json() == not_ready | {"policy": None}
        refused = urllib3.request(
            "POST", f"{service.url}/act", json={"observations": [[0, 0, 0, 0]]}, retries=False
        )
        for response in (refused, get(service, "/health/ready")):
            assert response.status == 503
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.headers["Retry-After"] == "1"
            assert response.headers[ENVOY_HEALTH_CHECK_FAIL] == "true"
            assert (
                response.json()["detail"] == "no version of cartpole is served: there is none yet"
            )
        (models / "cartpole").mkdir()
        publish(trained.model_dir, models / "cartpole" / "1")
        wait_until(lambda: ready_version(service) == 1)


def alive(service: Service) -> bool:
    try:
        return get(service, "/health/live").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_once_it_is_ready_every_worker_answers(models: Path, tmp_path: Path) -> None:
    # No worker polls again during this test: each must have a version, or load one on demand.
    options = ("--workers", "4", "--poll-seconds", "1000")
    with running_service(models, tmp_path / "log", *options) as service:
        wait_until(lambda: alive(service) and ready_version(service) == 1)
        # New connections, so that all workers get some.
        assert {get(service, "/health/ready").status for _ in range(100)} == {200}


def test_versions_that_fail_a_check_are_refused_and_named_with_the_reason(
    models: Path, trained: Trained, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with running_service(models, log, "--workers", "1", "--poll-seconds", "0.1") as service:
        wait_until(lambda: alive(service) and ready_version(service) == 1)
        publish(trained.model_dir, models / "cartpole" / "10")
        wait_until(lambda: ready_version(service) == 10)
        publish(trained.model_dir, models / "cartpole" / "11", damage_graph)
        publish(trained.model_dir, models / "cartpole" / "12", unsolve)
        wait_until(lambda: "version 12" in log.read_text() and "version 11" in log.read_text())
        damaged = "saved_model.pb does not match its checksum on the card"
        unsolved = "its card says that it is not solved"
        assert report(service) == [
            (12, "refused", unsolved),
            (11, "refused", damaged),
            (10, "served", "the newest version that passes every check is served"),
            (1, "waiting", "not selected: the newest version that passes every check is served"),
        ]
        # A refused version is checked again when its files change: it may have been incomplete.
        shutil.copy(trained.model_dir / "saved_model.pb", models / "cartpole" / "11")
        wait_until(lambda: ready_version(service) == 11)
    logged = log.read_text()
    assert f"refused cartpole version 11: {damaged}" in logged
    assert f"refused cartpole version 12: {unsolved}" in logged
    assert "Traceback" not in logged


def test_only_a_change_from_a_served_version_to_another_is_a_swap(
    models: Path, trained: Trained, trials: Trials
) -> None:
    metrics = Metrics()
    repository = Repository(Settings(models=models), metrics, trials)
    repository.refresh()
    repository.select("cartpole", "nothing")
    repository.select("cartpole", "newest")
    assert 'policy_swaps_total{model="cartpole"} 0.0' in metrics.text()[0].decode()
    publish(trained.model_dir, models / "cartpole" / "2")
    repository.refresh()
    assert 'policy_swaps_total{model="cartpole"} 1.0' in metrics.text()[0].decode()


def test_a_return_below_the_setting_is_not_served(
    models: Path, trained: Trained, tmp_path: Path
) -> None:
    def improve(model_dir: Path) -> None:
        edit_card(model_dir, lambda card: card["evaluation"]["sampled"].update(mean=600.0))
        edit_card(model_dir, lambda card: card["evaluation"]["greedy"].update(mean=600.0))

    options = ("--min-return", "550", "--workers", "1", "--poll-seconds", "0.1")
    with running_service(models, tmp_path / "log", *options) as service:
        reason = "its greedy mean return 500 is below 550"
        wait_until(lambda: alive(service) and report(service) == [(1, "refused", reason)])
        assert get(service, "/health/ready").json()["detail"] == (
            f"no version of cartpole is served: version 1: {reason}"
        )
        publish(trained.model_dir, models / "cartpole" / "2", improve)
        wait_until(lambda: ready_version(service) == 2)


def test_several_models_are_served_by_name(models: Path, trained: Trained, tmp_path: Path) -> None:
    (models / "other").mkdir()
    publish(trained.model_dir, models / "other" / "7")
    (models / "a file").touch()
    (models / ".hidden").mkdir()
    with running_service(models, tmp_path / "log", "--name", "other") as service:
        wait_until(lambda: alive(service) and ready_version(service) == 7)
        names = [model["name"] for model in get(service, "/models").json()["models"]]
        assert names == ["other", "cartpole"]
        for path, expected in [
            ("/act", ("other", 7)),
            ("/models/other/act", ("other", 7)),
            ("/models/cartpole/act", ("cartpole", 1)),
        ]:
            answer = urllib3.request(
                "POST", service.url + path, json={"observation": [0, 0, 0, 0]}, retries=False
            )
            assert answer.status == 200, answer.data
            assert tuple(answer.json()["model"].values())[:2] == expected
        unknown = urllib3.request(
            "POST", service.url + "/models/x/act", json={"observation": [0] * 4}, retries=False
        )
        assert unknown.status == 404


def test_a_deleted_model_is_told_of_by_no_alert(
    models: Path, trained: Trained, tmp_path: Path
) -> None:
    (models / "other").mkdir()
    publish(trained.model_dir, models / "other" / "7")
    log = tmp_path / "log"
    with running_service(models, log, "--poll-seconds", "0.1") as service:
        wait_until(lambda: log.read_text().count("serving other version 7") == 2)
        assert of_workers(service, "version") == ["7.0", "7.0"]
        shutil.rmtree(models / "other")
        wait_until(lambda: of_workers(service, "version") == ["NaN", "NaN"])
        # Equal, as `PolicyWorkersDisagree` compares them.
        assert of_workers(service, "digest") == ["0.0", "0.0"]
        (models / "other").mkdir()
        wait_until(lambda: of_workers(service, "version") == ["-1.0", "-1.0"])


def of_workers(service: Service, what: str) -> list[str]:
    """A number of the model `other`, of each worker, as Prometheus gets it."""
    name = f'policy_served_{what}{{model="other",pid="'
    lines = get(service, "/metrics").data.decode().splitlines()
    return [line.rpartition(" ")[2] for line in lines if line.startswith(name)]


def test_the_card_is_a_page_for_a_browser_with_the_pictures_of_the_run(
    service: Service, trained: Trained
) -> None:
    address = f"{service.url}/models/cartpole"
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = urllib3.request("GET", address, headers=browser)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for accept in ("*/*", "application/json"):
        answer = urllib3.request("GET", address, headers={"Accept": accept})
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Vary"] == "Accept"
    for name, kind in [("learning_curve.png", "image/png"), ("episode.gif", "image/gif")]:
        picture = urllib3.request("GET", f"{address}/{name}")
        assert picture.headers["Content-Type"] == kind
        assert picture.data == (trained.model_dir / "assets.extra" / name).read_bytes()


def test_pictures_that_did_not_come_with_a_version_are_not_found(
    models: Path, tmp_path: Path
) -> None:
    for name in ("learning_curve.png", "episode.gif"):
        (models / "cartpole" / "1" / "assets.extra" / name).unlink()
    reseal(models / "cartpole" / "1")
    with running_service(models, tmp_path / "log", "--workers", "1") as service:
        wait_until(lambda: alive(service) and ready_version(service) == 1)
        missing = get(service, "/models/cartpole/episode.gif")
        assert missing.status == 404
        assert missing.json()["detail"] == "version 1 of cartpole came without episode.gif"
