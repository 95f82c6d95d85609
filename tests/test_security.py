"""Headers on every answer, no path from a request on the disk, no symbolic link followed."""

import itertools
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from werkzeug.routing import Rule

from tests.artefacts import publish
from tests.conftest import Service, Trained, running_service, wait_until
from tests.test_keys import path_of, rules
from tests.test_versions import alive, get

SECRET = "root:x:0"  # what /etc/passwd has

HOSTILE = [
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5cetc%5cpasswd",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "....//....//etc/passwd",
    "%252e%252e%252fetc%252fpasswd",
    "cartpole%00",
    "cartpole%00.css",
    "cartpole%2f1",
    "cartpole/../cartpole",
    "%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
    ".",
    ".hidden",
    "serve.json",
    "file:%2f%2f%2fetc%2fpasswd",
    "~root",
    "CARTPOLE%20",
    "x" * 1000,
]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.rule)
def test_every_answer_has_the_security_headers(service: Service, rule: Rule) -> None:
    for method in sorted((rule.methods or set()) - {"POST", "DELETE", "PATCH", "PUT"}):
        for accept in ("application/json", "text/html"):
            answer = urllib3.request(
                method, service.url + path_of(rule), headers={"Accept": accept}, retries=False
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] in ("no-store", "no-cache")
            assert answer.headers["X-Request-ID"]
            assert len(answer.headers.getlist("Date")) == 1  # (RFC 9110, section 5.3)
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b'Content-Length: 29\r\n\r\n{"observation": [0, 0, 0, 0]}',  # around Flask
        b"GET /act HTTP/1.1\r\nHost: x\r\n\r\n",  # 405
        b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",  # 415
        b"GET /no/such HTTP/1.1\r\nHost: x\r\n\r\n",  # 404
        b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",  # 413
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",  # not HTTP
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",  # 414
    ],
)
def test_answers_from_wherever_they_come_have_them_too(service: Service, sent: bytes) -> None:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(sent)
        head = b"".join(iter(connection.makefile("rb").readline, b"\r\n"))
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in head
    assert b"\r\nCache-Control: no-store\r\n" in head


def hostile_paths() -> list[str]:
    """Every rule with a name or the like, and each hostile name in its place."""
    paths = set()
    for rule, name in itertools.product(rules(), HOSTILE):
        if rule.arguments - set(rule.defaults or {}):
            path = path_of(rule)
            for there in ("cartpole", "app.js", "/x"):
                if there in path:
                    paths.add(path.replace(there, f"/{name}" if there == "/x" else name, 1))
    return sorted(paths)


def test_no_name_in_a_request_is_a_path(service: Service) -> None:
    paths = hostile_paths()
    assert len(paths) > 300
    with urllib3.PoolManager(retries=False) as pool:
        for path, method in itertools.product(paths, ("GET", "POST")):
            # Not urllib3's own way to a path: it would take the dots out.
            answer = pool.connection_from_url(service.url).urlopen(
                method,
                path,
                body=b"{}" if method == "POST" else None,
                headers={"Content-Type": "application/json"},
                assert_same_host=False,
                redirect=False,
            )
            assert answer.status in (308, 400, 403, 404, 405, 409, 422), (method, path)
            assert SECRET.encode() not in answer.data
    assert get(service, "/health/ready").status == 200


def test_no_symbolic_link_is_followed(trained: Trained, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(trained.models / "cartpole", outside / "cartpole")
    models = tmp_path / "models"
    models.mkdir()
    # The default model, another one, a version, and a file of one.
    (models / "cartpole").symlink_to(outside / "cartpole")
    (models / "linked").symlink_to(outside / "cartpole")
    (models / "own").mkdir()
    publish(trained.model_dir, models / "own" / "1")
    (models / "own" / "2").symlink_to(outside / "cartpole" / "1")

    def link_graph(model_dir: Path) -> None:
        (model_dir / "saved_model.pb").unlink()
        (model_dir / "saved_model.pb").symlink_to(trained.model_dir / "saved_model.pb")

    publish(trained.model_dir, models / "own" / "3", link_graph)
    with running_service(models, tmp_path / "log", "--workers", "1") as service:
        wait_until(lambda: alive(service) and "serving own version 1" in service.log.read_text())
        told = {model["name"]: model for model in get(service, "/models").json()["models"]}
        assert set(told) == {"cartpole", "own"}
        assert told["cartpole"]["version"] is None
        assert told["own"]["version"] == 1
        reasons = {one["version"]: one["reason"] for one in told["own"]["versions"]}
        assert reasons[2] == "it is a symbolic link"
        assert reasons[3] == "'saved_model.pb' is a symbolic link"
        not_ready = get(service, "/health/ready")
        assert not_ready.status == 503
        assert not_ready.json()["detail"] == (
            "no version of cartpole is served: version 1: its model's folder is a symbolic link"
        )
