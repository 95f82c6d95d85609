"""`python -m serving health`: the configured address, no proxy, one line, and cheap."""

import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from serving.healthcheck import problem
from tests.conftest import ENVIRONMENT, ROOT, Service, run, running_service, wait_until

READY = b'HTTP/1.1 200 OK\r\n\r\n{"status":"ready"}'


def answers(listener: socket.socket, answer: bytes) -> None:
    """Give one connection this answer, in a thread."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    Thread(target=serve, daemon=True).start()


def test_a_ready_service_is_healthy_whatever_proxy_is_set(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setitem(ENVIRONMENT, name, "http://127.0.0.1:9")
    monkeypatch.setitem(ENVIRONMENT, "SERVING_PORT", str(urlsplit(service.url).port))
    for host in ("127.0.0.1", "0.0.0.0", "localhost"):
        monkeypatch.setitem(ENVIRONMENT, "SERVING_HOST", host)
        finished = run("serving", "health")
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, "ready\n", "")


def test_the_reason_of_the_service_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with running_service(tmp_path / "models", tmp_path / "log", "--workers", "1") as service:
        port = urlsplit(service.url).port
        assert port is not None
        wait_until(lambda: "no answer" not in str(problem("127.0.0.1", port)))
        finished = run("serving", "health", "--port", str(port))
    assert finished.returncode == 1
    assert finished.stderr.startswith("Error: ")
    assert "cartpole" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_an_address_without_a_service_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        monkeypatch.setitem(ENVIRONMENT, "SERVING_PORT", str(port))
        finished = run("serving", "health")
    assert finished.returncode == 1
    assert finished.stderr == (
        f"Error: no answer from 127.0.0.1 port {port}: [Errno 111] Connection refused\n"
    )


def test_the_wildcard_of_ipv6_is_asked_on_its_loopback() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        answers(listener, READY)
        assert problem("::", listener.getsockname()[1]) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "answered ''"),
        (b"\xff\n\x1b[2J\r\n", "answered '\ufffd\\n\\x1b[2J'"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "answered 'HTTP/1.1 2000 OK'"),
        (b"HTTP/1.1 503 No\r\n\r\n{", "answered 'HTTP/1.1 503 No'"),
        (b"HTTP/1.1 503 No\r\n\r\n[1]", "answered 'HTTP/1.1 503 No'"),
        (b'HTTP/1.1 503 No\r\n\r\n{"detail":"not\\n yet"}', "not yet"),
    ],
)
def test_any_other_answer_is_unhealthy_in_one_line(answer: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers(listener, answer)
        told = problem("127.0.0.1", listener.getsockname()[1])
    assert told is not None
    assert told.endswith(reason)


def test_a_service_that_says_nothing_is_unhealthy_before_docker_gives_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = problem("127.0.0.1", listener.getsockname()[1], timeout=0.1)
    assert told is not None
    assert told.endswith("timed out")


def test_it_loads_nothing_that_it_does_not_need(service: Service) -> None:
    arguments = [sys.executable, "-X", "importtime", "-m", "serving", "health"]
    port = str(urlsplit(service.url).port)
    variables = {"SERVING_HOST": "127.0.0.1", "SERVING_PORT": port}
    for given, environment in ((["--port", port], {}), ([], variables)):
        finished = subprocess.run(
            [*arguments, *given],
            cwd=ROOT,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0
        loaded = {line.split("|")[2].strip() for line in finished.stderr.splitlines()}
        expected = {"serving", "serving.healthcheck"}
        if given:  # the whole command line, but nothing of what it starts
            files = (ROOT / "serving").glob("*_command*.py")
            expected |= {"serving.cli", "serving.settings"}
            expected |= {f"serving.{path.stem}" for path in files}
        assert {name for name in loaded if name.startswith("serving")} == expected
        heavy = {"tensorflow", "numpy", "flask", "gunicorn", "msgspec", "http.client", "logging"}
        assert not loaded & (heavy if given else heavy | {"click", "dataclasses", "json"})


@pytest.mark.parametrize(
    ("host", "port", "status"),
    [("127.0.0.1", "65536", 1), ("\xe4..x", "9", 1), ("127.0.0.1", "x", 2), (" ", "9", 1)],
)
def test_a_wrong_variable_is_one_line(
    host: str, port: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SERVING_HOST", host)
    monkeypatch.setitem(ENVIRONMENT, "SERVING_PORT", port)
    finished = run("serving", "health")
    assert finished.returncode == status
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
