"""API keys: who gets in, who does not, and where a key never shows."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from werkzeug.routing import Rule

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.client import PolicyClient, ServiceError
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, Service, Trained, run, running_service, wait_until
from tests.test_act import ROW
from tests.test_errors import expect_problem
from tests.test_serving_cli import children

IN_FILE = ["file-key-aaaaaaaaaaaa", "file-key-bbbbbbbbbbbb"]
IN_VARIABLE = ["variable-key-cccccccc", "variable-key-dddddddd"]
WRONG = "wrong-key-eeeeeeeeeee"

# What the issue leaves open: health, and files that hold no data.
PUBLIC = {
    "/health/live",
    "/health/ready",
    "/v2/health/live",
    "/v2/health/ready",
    "/",
    "/web/<name>",
}


@pytest.fixture(scope="module")
def guarded(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys from both places that logs every request."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"\n  {IN_FILE[0]}\r\n\n{IN_FILE[1]}")
    options = (
        *("--api-keys-file", str(folder / "keys")),
        *("--log-requests", "all", "--log-format", "json"),
        *("--trusted-proxies", "127.0.0.1"),
    )
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ENVIRONMENT, "SERVING_API_KEYS", ", ".join(IN_VARIABLE))
            service = stack.enter_context(running_service(trained.models, folder / "log", *options))
        PolicyClient(service.url).wait_until_ready(60)
        yield service


def act(service: Service, authorization: str | None) -> urllib3.BaseHTTPResponse:
    headers = {} if authorization is None else {"Authorization": authorization}
    return urllib3.request(
        "POST", f"{service.url}/act", json={"observation": ROW}, headers=headers, retries=False
    )


@pytest.mark.parametrize("key", IN_FILE + IN_VARIABLE)
def test_every_key_of_both_places_is_valid(guarded: Service, key: str) -> None:
    assert act(guarded, f"Bearer {key}").status == 200
    assert act(guarded, f"bearer   {key} ").status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {WRONG}",
        f"Bearer {IN_FILE[0]}x",
        f"Bearer {IN_FILE[0][:-1]}",
        f"Bearer {IN_FILE[0].upper()}",
        f"Bearer {IN_FILE[0]} {IN_FILE[1]}",
        f"Bearer {IN_FILE[0]},{IN_FILE[1]}",
        f"Basic {IN_FILE[0]}",
        IN_FILE[0],
        f"Bearer{IN_FILE[0]}",
        "Bearer \xe4\xf6\xfc" + IN_FILE[0],
    ],
)
def test_without_a_valid_key_it_is_401(guarded: Service, authorization: str | None) -> None:
    refused = act(guarded, authorization)
    problem = expect_problem(refused, 401)
    has_key = bool(re.match("Bearer +[^ ]", authorization or ""))
    assert problem["detail"] == (
        "this service does not know the API key"
        if has_key
        else "an API key is needed: Authorization: Bearer <key>"
    )
    challenge = 'Bearer error="invalid_token"' if has_key else "Bearer"
    assert refused.headers["WWW-Authenticate"] == challenge


def first_line(service: Service, sent: bytes) -> bytes:
    """Of the answer to bytes that no client library would send."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(sent)
        return connection.makefile("rb").readline()


def test_bytes_that_are_no_text_are_401_and_the_service_goes_on(guarded: Service) -> None:
    for value in (b"Bearer \xff\xfe\x80", b"\xed\xa0\x80", bytes(range(0x80, 0x100))):
        head = b"GET /models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
        assert first_line(guarded, head + value + b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    assert act(guarded, f"Bearer {IN_FILE[0]}").status == 200


def test_a_refusal_before_the_body_is_logged_with_its_client_and_trace(guarded: Service) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    address = urlsplit(guarded.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(
            b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Request-ID: early\r\n"
            b"X-Forwarded-For: 203.0.113.9\r\n"
            b"traceparent: 00-%b-00f067aa0ba902b7-01\r\n\r\n" % trace.encode()
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert f"\r\ntraceparent: 00-{trace}-".encode() in answer

    def logged() -> list[dict[str, str]]:
        lines = [json.loads(line) for line in guarded.log.read_text().splitlines()]
        return [line for line in lines if line.get("request_id") == "early"]

    wait_until(lambda: bool(logged()))
    (line,) = logged()
    assert line["remote"] == "203.0.113.9"
    assert line["traceparent"].startswith(f"00-{trace}-")


def rules() -> list[Rule]:
    settings, metrics = Settings(), Metrics()
    with Trials() as trials:
        app = create_api(settings, Repository(settings, metrics, trials), metrics, Keys([])).flask
    return list(app.url_map.iter_rules())


def path_of(rule: Rule) -> str:
    """A path of the rule that is there, where that is possible."""
    values = {"version": "1", "rest": "x", "prefix": "v1", "_rest": "x"}
    given = {
        name: values.get(name, "cartpole") for name in rule.arguments - set(rule.defaults or {})
    }
    if rule.rule.startswith("/web/"):
        given["name"] = "app.js"
    built = rule.build(given)
    assert built is not None
    return built[1]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.rule)
def test_every_route_and_method_but_health_and_page_files_wants_a_key(
    guarded: Service, rule: Rule
) -> None:
    for method in sorted(rule.methods or set()):
        answer = urllib3.request(method, guarded.url + path_of(rule), retries=False, redirect=False)
        if rule.rule in PUBLIC:
            assert answer.status == 200, (method, rule)
        else:
            assert answer.status == 401, (method, rule)


@pytest.mark.parametrize("path", ["/no/such/route", "/models/x/y/z", "//act", "/%2e%2e/metrics"])
def test_a_route_that_is_not_there_wants_a_key_too(guarded: Service, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "TRACE", "BREW"):
        assert urllib3.request(method, guarded.url + path, retries=False).status == 401


def test_a_page_shows_nobody_which_models_there_are(guarded: Service) -> None:
    browser = {"Accept": "text/html"}
    pages = [
        urllib3.request("GET", f"{guarded.url}/models/{name}", headers=browser, retries=False)
        for name in ("cartpole", "none")
    ]
    assert [page.status for page in pages] == [200, 200]
    assert pages[0].data == pages[1].data
    assert b"cartpole" not in pages[0].data
    for accept in ("application/json", "*/*", "text/html;q=0.5, application/json"):
        headers = {"Accept": accept}
        answer = urllib3.request("GET", f"{guarded.url}/models/cartpole", headers=headers)
        assert answer.status == 401


def test_the_client_and_the_demo_player_send_theirs(guarded: Service) -> None:
    with PolicyClient(guarded.url, api_key=IN_FILE[1]) as client:
        assert client.act([ROW]).actions in ([0], [1])
        assert IN_FILE[1] not in repr(client)
    for wrong, message in (
        (None, "401 an API key is needed"),
        (WRONG, "401 this service does not know"),
    ):
        with PolicyClient(guarded.url, api_key=wrong) as client:
            with pytest.raises(ServiceError, match=message) as refused:
                client.act([ROW])
            assert refused.value.status == 401
    with pytest.raises(ServiceError, match="visible ASCII"):
        PolicyClient(guarded.url, api_key=f"{IN_FILE[1]}\nX-Other: 1")


def test_the_demo_player_takes_its_key_from_the_environment(guarded: Service) -> None:
    command = ("serving", "play", "--url", guarded.url, "--episodes", "1", "--json")
    with pytest.MonkeyPatch.context() as patch:
        without = run(*command)
        patch.setitem(ENVIRONMENT, "SERVING_API_KEY", IN_VARIABLE[0])
        played = run(*command)
    assert played.returncode == 0, played.stderr
    assert without.returncode == 77
    assert without.stderr.count("\n") == 1
    assert "401 an API key is needed" in without.stderr


def test_no_key_is_in_the_log_or_on_a_command_line(guarded: Service) -> None:
    for key in (*IN_FILE, *IN_VARIABLE, WRONG):
        assert act(guarded, f"Bearer {key}").status == (401 if key == WRONG else 200)
        assert urllib3.request("GET", f"{guarded.url}/models?key={key}").status == 401
        for broken in (
            f"GET /?{key} HTTP/1.x\r\n",
            f"GET / HTTP/1.1\r\nAuthorization Bearer {key}\r\n",
        ):
            assert first_line(guarded, f"{broken}\r\n".encode())[:12] in (
                b"HTTP/1.1 400",
                b"HTTP/1.1 505",
            )
    wait_until(lambda: guarded.log.read_text().count('"path": "/act"') >= 5)
    told = guarded.log.read_text()
    assert "4 API keys" in told
    for pid in [guarded.process.pid, *children(guarded.process.pid)]:
        told += Path(f"/proc/{pid}/cmdline").read_text()
    for key in (*IN_FILE, *IN_VARIABLE, WRONG):
        assert key not in told
