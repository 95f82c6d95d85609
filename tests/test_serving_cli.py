"""The serving command line, and what the service does before, without and after a model."""

import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import urllib3

from serving.server import bind
from serving.settings import Settings
from tests.conftest import Service, Trained, run, running_service


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--no-such-option"], "No such option"),
        (["run", "--models", "no/such/folder"], "no/such/folder"),
        (["run", "--models", "tests", "--port", "65536"], "--port"),
        (["run", "--models", "tests", "--workers", "0"], "--workers"),
        (["run", "--models", "tests", "--poll-seconds", "0"], "--poll-seconds"),
        (["run", "--models", "tests", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["run", "--models", "tests", "--host", "no.such.host.invalid"], "cannot listen on"),
        (["play"], "--url"),
        (["play", "--url", "ftp://x"], "--url"),
        (["play", "--url", "http://127.0.0.1:9", "--episodes", "0"], "--episodes"),
        (["no-such-command"], "No such command"),
        ([], "Missing command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    finished = run("serving", *arguments)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr


def test_a_port_in_use_is_one_line_and_exit_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = run("serving", "run", "--models", "tests", "--port", port)
    assert finished.returncode == 2
    expected = f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert finished.stderr == expected


def test_every_setting_is_an_option_with_help_and_a_variable() -> None:
    shown = re.sub(r"\s+", " ", run("serving", "run", "--help").stdout)
    for setting in fields(Settings):
        assert f"--{setting.name.replace('_', '-')} " in shown
        assert f"SERVING_{setting.name.upper()}" in shown
        assert setting.metadata["help"] in shown


def test_the_socket_is_without_delay_before_anyone_can_connect() -> None:
    listener = bind("127.0.0.1", 0)
    with listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


def get(service: Service, path: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", service.url + path, retries=urllib3.Retry(20, backoff_factor=0.1))


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_health_and_models_of_a_ready_service(service: Service, trained: Trained) -> None:
    assert get(service, "/health/live").json() == {"status": "live"}
    ready = get(service, "/health/ready")
    assert ready.status == 200
    assert ready.json() == {"status": "ready", "model": {"name": "cartpole", "version": 1}}
    assert get(service, "/models").json() == {"models": [{"name": "cartpole", "version": 1}]}
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    model = get(service, "/models/cartpole").json()
    assert model == {"name": "cartpole", "version": 1, "policy": card}
    assert get(service, "/models/other").status == 404


def test_without_a_model_it_is_alive_and_not_ready_until_one_appears(
    trained: Trained, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    with running_service(models, tmp_path / "log", "--poll-seconds", "0.1") as service:
        assert get(service, "/health/live").status == 200
        for path in ("/health/ready", "/models", "/models/cartpole"):
            response = urllib3.request("GET", service.url + path, retries=False)
            assert response.status == 503
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.headers["Retry-After"] == "1"
            assert "no version of cartpole" in response.json()["detail"]
        asked = urllib3.request(
            "POST", f"{service.url}/act", json={"observations": [[0, 0, 0, 0]]}, retries=False
        )
        assert asked.status == 503
        shutil.copytree(trained.model_dir, tmp_path / "1")
        (models / "cartpole").mkdir()
        (tmp_path / "1").rename(models / "cartpole" / "1")
        wait_until(lambda: ready_version(service) == 1)


def ready_version(service: Service) -> int | None:
    response = urllib3.request("GET", f"{service.url}/health/ready", retries=False)
    version: int | None = response.json()["model"]["version"] if response.status == 200 else None
    return version


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(
    trained: Trained, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(trained.models, models)
    damage_graph(models / "cartpole" / "1")
    log = tmp_path / "log"
    with running_service(models, log, "--workers", "1") as service:
        wait_until(lambda: "refused" in log.read_text())
        assert get(service, "/health/live").status == 200
        response = urllib3.request("GET", f"{service.url}/health/ready", retries=False)
        assert response.status == 503
        for text in (response.json()["detail"], log.read_text()):
            assert f"{models / 'cartpole' / '1'}: " in text
            assert "saved_model.pb" in text
    assert "Traceback" not in log.read_text()


def damage_graph(model_dir: Path) -> None:
    (model_dir / "saved_model.pb").write_bytes(b"not a graph")


def test_a_newer_version_takes_over_and_a_broken_one_does_not(
    trained: Trained, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(trained.models, models)
    log = tmp_path / "log"
    with running_service(models, log, "--workers", "1", "--poll-seconds", "0.1") as service:
        wait_until(lambda: "serving cartpole version 1" in log.read_text())
        shutil.copytree(trained.model_dir, tmp_path / "10")
        (tmp_path / "10").rename(models / "cartpole" / "10")
        wait_until(lambda: ready_version(service) == 10)
        shutil.copytree(trained.model_dir, tmp_path / "11")
        damage_graph(tmp_path / "11")
        (tmp_path / "11").rename(models / "cartpole" / "11")
        wait_until(lambda: "cartpole/11" in log.read_text())
        assert ready_version(service) == 10


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_its_workers(
    trained: Trained, tmp_path: Path, stop: signal.Signals
) -> None:
    log = tmp_path / "log"
    with running_service(trained.models, log) as service:
        wait_until(lambda: log.read_text().count("serving cartpole version 1") == 2)
        workers = children(service.process.pid)
        assert len(workers) == 2
        service.process.send_signal(stop)
        assert service.process.wait(timeout=30) == 0
        assert service.process.stdout is not None
        assert service.process.stdout.read() == ""  # the address was all
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", service.url)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"{service.url}/health/live", retries=False)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]
