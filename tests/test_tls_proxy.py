"""The configuration of compose's profile `proxy`, with Debian's nginx in front of the service."""

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import urllib3

from serving.client import PolicyClient
from tests.conftest import ROOT, Service, Trained, running_service, wait_until
from tests.faults.wire import children
from tests.test_act import ROW
from tests.tools import require_program


class Proxied(NamedTuple):
    url: str
    certificate: str
    http: urllib3.PoolManager  # which believes its certificate
    service: Service


@pytest.fixture(scope="module")
def proxied(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    require_program("nginx", "nginx")
    require_program("openssl", "openssl")
    folder = tmp_path_factory.mktemp("tls-proxy")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")),
        ],
        capture_output=True,
        check=True,
    )
    options = ("--trusted-proxies", "127.0.0.0/8", "--log-requests", "all")
    with running_service(trained.models, folder / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # Only where things are is another than in the container.
        text = (ROOT / "proxy" / "nginx.conf").read_text()
        for inside, here in [
            ("/tmp/", f"{folder}/"),
            ("/etc/tls/", f"{folder}/"),
            ("serve:8000", urlsplit(service.url).netloc),
            ("listen 8443", f"listen 127.0.0.1:{port}"),
        ]:
            assert inside in text
            text = text.replace(inside, here)
        (folder / "nginx.conf").write_text(text)
        # Where root runs the tests, no other user may enter their folder.
        globally = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        command = ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", globally]
        with subprocess.Popen(command) as nginx:
            try:
                wait_until(lambda: (folder / "nginx.pid").exists())
                with urllib3.PoolManager(ca_certs=str(folder / "tls.crt")) as http:
                    yield Proxied(
                        f"https://localhost:{port}", str(folder / "tls.crt"), http, service
                    )
            finally:
                nginx.terminate()


def test_the_service_answers_below_the_prefix_over_tls(proxied: Proxied) -> None:
    for path in ("/", "/health/ready", "/models/cartpole", "/v2/models/cartpole", "/openapi.json"):
        assert proxied.http.request("GET", f"{proxied.url}/policy{path}").status == 200, path
    body = {"observation": [0.0, 0.0, 0.2, 0.0], "deterministic": True}  # falling right
    answer = proxied.http.request("POST", f"{proxied.url}/policy/act", json=body)
    assert answer.json()["actions"] == [1]


def test_nothing_else_is_shown_and_a_missing_slash_is_added(proxied: Proxied) -> None:
    for path in ("/", "/act", "/metrics"):
        assert proxied.http.request("GET", proxied.url + path).status == 404
    answer = proxied.http.request("GET", f"{proxied.url}/policy", redirect=False)
    assert (answer.status, answer.headers["Location"]) == (308, "/policy/")


def test_a_body_that_the_service_takes_passes(proxied: Proxied) -> None:
    body = b'{"observations": [[0, 0, 0, 0]]' + b" " * (16 * 1024 * 1024 - 32) + b"}"
    headers = {"Content-Type": "application/json"}
    answer = proxied.http.request("POST", f"{proxied.url}/policy/act", body=body, headers=headers)
    assert answer.status == 200


def test_what_is_slow_to_arrive_is_not_kept_in_files(proxied: Proxied) -> None:
    folder = Path(proxied.certificate).parent
    context = ssl.create_default_context(cafile=proxied.certificate)
    address = urlsplit(proxied.url)
    assert address.hostname is not None
    with (
        socket.create_connection((address.hostname, address.port or 0)) as plain,
        context.wrap_socket(plain, server_hostname=address.hostname) as connection,
    ):
        head = "POST /policy/act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n"
        connection.sendall(head.encode() + b" " * 4_000_000)
        time.sleep(0.5)
        # nginx unlinks such a file at once: it has no name any more.
        master = int((folder / "nginx.pid").read_text())
        opened = [path for pid in children(master) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [path for path in opened if path.readlink().is_relative_to(folder)]


def connections_to(port: int) -> int:
    """How many connections to a port there are or just were, counted at their nearer ends."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    remote = [line.split()[2] for line in lines]
    return sum(int(address.partition(":")[2], 16) == port for address in remote)


def test_connections_are_kept_on_both_sides(proxied: Proxied) -> None:
    proxied.http.clear()
    for _ in range(50):
        answer = proxied.http.request(
            "POST", f"{proxied.url}/policy/act", json={"observation": ROW}
        )
        assert answer.status == 200
    assert proxied.http.connection_from_url(proxied.url).num_connections == 1
    port = urlsplit(proxied.service.url).port
    assert port is not None
    # One for each process of nginx and test of this file, not one for each request.
    assert connections_to(port) < 20


def test_the_log_has_the_address_of_the_client(proxied: Proxied) -> None:
    headers = {"X-Request-ID": "through-tls", "X-Forwarded-For": "198.51.100.7"}
    body = {"observation": ROW}
    proxied.http.request("POST", f"{proxied.url}/policy/act", json=body, headers=headers)

    def logged() -> list[dict[str, str]]:
        lines = [json.loads(line) for line in proxied.service.log.read_text().splitlines()]
        return [line for line in lines if line.get("request_id") == "through-tls"]

    wait_until(lambda: bool(logged()))
    (line,) = logged()
    assert line["remote"] == "198.51.100.7"
    assert line["path"] == "/act"
