"""What Envoy does with a request: TLS, the path, limits, and how often a service gets it."""

import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import urllib3

from tests.cluster.envoy.conftest import Balanced, balancing
from tests.cluster.envoy.load import Load
from tests.cluster.envoy.machines import envoy_program
from tests.conftest import ROOT, Trained, wait_until
from tests.faults.conftest import Tell
from tests.faults.wire import memory_mib
from tests.test_act import ROW

pytestmark = pytest.mark.cluster
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def one(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    """One service, which logs every request; tests must leave it so."""
    options = ("--trusted-proxies", "127.0.0.1", "--log-requests", "all")
    with balancing(trained.models, tmp_path_factory.mktemp("one"), 1, *options) as running:
        yield running


@pytest.fixture(scope="module")
def http(one: Balanced) -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(ca_certs=str(one.envoy.certificate), retries=False) as pool:
        yield pool


def test_the_binary_is_of_the_version_that_compose_names() -> None:
    printed = subprocess.run([envoy_program(), "--version"], capture_output=True, text=True)
    _, _, rest = (ROOT / "docker-compose.yml").read_text().partition("envoyproxy/envoy:v")
    assert f"/{rest.split()[0]}/" in printed.stdout


def test_the_service_answers_below_the_prefix_over_tls(
    one: Balanced, http: urllib3.PoolManager
) -> None:
    for path in ("/", "/health/ready", "/models/cartpole", "/v2/models/cartpole", "/openapi.json"):
        assert http.request("GET", one.envoy.url + path).status == 200, path
    body = {"observation": [0.0, 0.0, 0.2, 0.0], "deterministic": True}  # falling right
    answer = http.request("POST", f"{one.envoy.url}/act", json=body)
    assert answer.json()["actions"] == [1]
    assert not [name for name in answer.headers if name.lower().startswith("x-envoy")]


def test_nothing_else_is_shown_and_a_missing_slash_is_added(
    one: Balanced, http: urllib3.PoolManager
) -> None:
    for path in ("/", "/act", "/metrics", "/policyact"):
        assert http.request("GET", one.envoy.origin + path).status == 404
    answer = http.request("GET", one.envoy.url)
    assert (answer.status, answer.headers["Location"]) == (308, f"{one.envoy.url}/")


def test_tls_1_1_is_refused(one: Balanced) -> None:
    address = one.envoy.origin.removeprefix("https://")
    client = ["openssl", "s_client", "-connect", address, "-cipher", "ALL:@SECLEVEL=0"]
    for version, status in [("-tls1_1", 1), ("-tls1_2", 0)]:
        ended = subprocess.run([*client, version], stdin=subprocess.DEVNULL, capture_output=True)
        assert ended.returncode == status, ended.stderr


def test_a_body_may_be_as_large_as_for_the_service(
    one: Balanced, http: urllib3.PoolManager
) -> None:
    body = b'{"observations": [[0, 0, 0, 0]]' + b" " * (16 * MIB - 32) + b"}"
    headers = {"Content-Type": "application/json"}
    sent = http.request("POST", f"{one.envoy.url}/act", body=body, headers=headers)
    assert sent.status == 200
    # A larger one is refused before it is sent, to a client that reads then.
    context = ssl.create_default_context(cafile=str(one.envoy.certificate))
    address = ("localhost", int(one.envoy.origin.rpartition(":")[2]))
    head = f"POST /policy/act HTTP/1.1\r\nHost: x\r\nContent-Length: {16 * MIB + 1}\r\n\r\n"
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_bodies_that_wait_take_little_memory(one: Balanced, tell: Tell) -> None:
    replica, envoy = one.replicas[0], one.envoy
    context = ssl.create_default_context(cafile=str(envoy.certificate))
    address = ("localhost", int(envoy.origin.rpartition(":")[2]))
    head = f"POST /policy/act HTTP/1.1\r\nHost: x\r\nContent-Length: {16 * MIB}\r\n\r\n"
    before = memory_mib(envoy.process.pid)
    replica.pause()
    try:
        with ExitStack() as stack:
            for _ in range(64):
                plain = stack.enter_context(socket.create_connection(address, timeout=10))
                wrapped = context.wrap_socket(plain, server_hostname="localhost")
                client = stack.enter_context(wrapped)
                client.sendall(head.encode())
                client.settimeout(0.02)
                with suppress(TimeoutError):  # nobody reads any more
                    while True:
                        client.sendall(bytes(64 * 1024))
            time.sleep(0.5)
            taken = memory_mib(envoy.process.pid) - before
    finally:
        replica.send(signal.SIGCONT)
    envoy.wait_until_usable([replica])
    tell(f"64 bodies of 16 MiB that no service reads take {taken:.0f} MiB of Envoy's memory")
    # 64 times the buffer limit of 128 KiB, on both sides, are 16 MiB; and what TLS takes.
    assert taken < 64


def logged(one: Balanced, request_id: str) -> dict[str, Any]:
    """The line about a request in the log of the service."""
    log = one.replicas[0].service.log

    def lines() -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in log.read_text().splitlines()]
        return [line for line in parsed if line.get("request_id") == request_id]

    wait_until(lambda: bool(lines()))
    (line,) = lines()
    return line


@pytest.fixture(scope="module")
def other(one: Balanced) -> Iterator[urllib3.PoolManager]:
    """A client whose address, 127.0.0.2, is not the proxy's."""
    authority = str(one.envoy.certificate)
    with urllib3.PoolManager(ca_certs=authority, source_address=("127.0.0.2", 0)) as pool:
        yield pool


def test_the_log_has_the_address_and_the_request_id_of_the_client(
    one: Balanced, other: urllib3.PoolManager
) -> None:
    headers = {"X-Request-ID": "through-envoy", "X-Forwarded-For": "198.51.100.7"}
    url = f"{one.envoy.url}/act"
    answer = other.request("POST", url, json={"observation": ROW}, headers=headers)
    assert answer.headers["X-Request-ID"] == "through-envoy"
    line = logged(one, "through-envoy")
    assert (line["remote"], line["path"]) == ("127.0.0.2", "/act")


@pytest.mark.parametrize("client", ["http", "other"])
def test_a_client_cannot_choose_timeouts(
    one: Balanced, client: str, request: pytest.FixtureRequest
) -> None:
    pool: urllib3.PoolManager = request.getfixturevalue(client)
    # 60,000 rows take far longer than a millisecond.
    headers = {"x-envoy-upstream-rq-timeout-ms": "1"}
    body = {"observations": [ROW] * 60_000}
    answer = pool.request("POST", f"{one.envoy.url}/act", json=body, headers=headers)
    assert answer.status == 200


def test_connections_to_the_service_are_kept(one: Balanced, http: urllib3.PoolManager) -> None:
    before = one.envoy.count("upstream_cx_total")
    for _ in range(50):
        sent = http.request("POST", f"{one.envoy.url}/act", json={"observation": ROW})
        assert sent.status == 200
    # One for each of Envoy's two threads, if there was none.
    assert one.envoy.count("upstream_cx_total") - before <= 2


def test_a_service_that_cannot_be_connected_to_costs_no_request(
    balanced: Balanced, tell: Tell
) -> None:
    envoy, (victim, *_) = balanced
    with urllib3.PoolManager(ca_certs=str(envoy.certificate), retries=False) as http:
        victim.kill()
        healthy = envoy.usable()
        # The last ones are about as large as what Envoy keeps of a request.
        for size in [0] * 50 + [MIB // 10] * 10:
            body = b'{"observations": [[0, 0, 0, 0]]' + b" " * size + b"}"
            headers = {"Content-Type": "application/json"}
            sent = http.request("POST", f"{envoy.url}/act", body=body, headers=headers)
            assert sent.status == 200, sent.data
    retried = envoy.count("upstream_rq_retry")
    tell(f"60 requests, 0 failed, {retried} retries by Envoy")
    assert victim.address in healthy
    assert 0 < retried <= 8  # ejected after five, not after a third of all


def test_a_request_that_a_service_is_not_ready_for_is_sent_to_another(
    balanced: Balanced, tell: Tell
) -> None:
    envoy, (unready, *others) = balanced
    with Load(envoy.url, envoy.certificate, 8, "plain") as load:
        shutil.rmtree(unready.models / "cartpole")
        envoy.wait_until_usable(others)
        time.sleep(1)
        retried = envoy.count("upstream_rq_retry")
    rejected = sum(
        count
        for labels, count in unready.metric("policy_http_requests_total").items()
        if 'route="/act"' in labels and 'status="503"' in labels
    )
    tell(f"{load.outcome}; {rejected:.0f} answered 503 by the service, {retried} retries by Envoy")
    assert load.outcome.failures == []
    assert retried == rejected > 0


def test_the_last_service_that_is_ready_gets_everything_and_without_one_the_reason_is_told(
    balanced: Balanced,
) -> None:
    envoy, (last, *others) = balanced
    with urllib3.PoolManager(ca_certs=str(envoy.certificate), retries=False) as http:
        for replica in others:
            shutil.rmtree(replica.models / "cartpole")
        envoy.wait_until_usable([last])
        before = envoy.count("upstream_rq_retry")
        for _ in range(30):
            sent = http.request("POST", f"{envoy.url}/act", json={"observation": ROW})
            assert sent.status == 200
        assert envoy.count("upstream_rq_retry") == before
        shutil.rmtree(last.models / "cartpole")
        envoy.wait_until_usable([])
        answer = http.request("POST", f"{envoy.url}/act", json={"observation": ROW})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "cartpole" in answer.json()["detail"]
