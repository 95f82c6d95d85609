"""Clients that attack the service through what it does before it decides: each costs little."""

import gzip
import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service
from tests.faults.wire import BODY, HEALTH, Answer, Wire, children, chunked, memory_mib, post

KEY = "0123456789abcdef"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def guarded(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of one worker that asks for a key."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(KEY)
    options = ("--workers", "1", "--api-keys-file", str(folder / "keys"))
    with running_service(trained.models, folder / "log", *options) as service:
        PolicyClient(service.url, api_key=KEY).wait_until_ready(60)
        yield service


class Health(threading.Thread):
    """Asks for health again and again; how long each answer took."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._done = threading.Event()
        self.seconds: list[float] = []

    def __enter__(self) -> "Health":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        with Wire(self._service.url) as wire:
            while not self._done.wait(0.01):
                started = time.monotonic()
                assert wire.ask(HEALTH).status == 200
                self.seconds.append(time.monotonic() - started)


def with_key(body: bytes, *fields: str) -> bytes:
    return post(body, f"Authorization: Bearer {KEY}", *fields)


def ask(service: Service, request: bytes) -> Answer:
    with Wire(service.url) as wire:
        return wire.ask(request)


def test_a_body_in_the_smallest_chunks_is_refused_by_its_head(guarded: Service) -> None:
    body = chunked(b" " * MIB, 1)
    head = post(b"", "Transfer-Encoding: chunked", length=False)
    with Wire(guarded.url) as wire:
        answer = wire.ask(head)
        assert answer.status == 401
        assert answer.fields["connection"] == "close"
        assert answer.fields["www-authenticate"] == "Bearer"
    # With a key it is read, in a time that grows with its length, and others are answered.
    allowed = post(b"", f"Authorization: Bearer {KEY}", "Transfer-Encoding: chunked", length=False)
    with Health(guarded) as health, Wire(guarded.url) as wire:
        assert wire.ask(allowed, body).status == 400
    assert max(health.seconds) < 2.0


def test_a_packed_body_of_millions_of_values_is_refused_while_health_answers(
    single: Service,
) -> None:
    rows = b",".join([b"[0]"] * (16 * MIB // 4 - 100))
    body = b'{"seed":1,"seed":2,"observations":[%b]}' % rows
    worker = children(single.process.pid)[0]
    before = memory_mib(worker)
    with Health(single) as health:
        answer = ask(single, post(gzip.compress(body, 1), "Content-Encoding: gzip"))
        grown = memory_mib(worker) - before
    assert answer.status == 422
    assert "more values than 65536 rows" in answer.json()["detail"]
    assert grown < 100
    assert max(health.seconds) < 0.5


def test_a_request_in_the_body_of_another_is_never_answered(single: Service) -> None:
    smuggled = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    request = b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length : %d\r\n\r\n%b"
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(single.url)) for _ in range(300)]
        for wire in wires:
            wire.send(request % (len(smuggled), smuggled))
        for wire in wires:
            assert wire.answer().status == 400
            assert wire.ended()


@pytest.mark.parametrize(
    "field", ["Content-Length: 16000000", "Transfer-Encoding: chunked", "Content-Length: 1"]
)
@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v2/health/live"])
def test_health_takes_no_body(single: Service, path: str, field: str) -> None:
    with Wire(single.url) as wire:
        answer = wire.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n".encode())
        assert answer.status == 413
        assert answer.fields["connection"] == "close"
        assert wire.ended()


@pytest.mark.parametrize("pause", [False, True])
def test_an_empty_body_in_chunks_is_one_however_it_arrives(single: Service, pause: bool) -> None:
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Wire(single.url) as wire:
        if pause:
            wire.send(head)
        assert wire.ask(b"0\r\n\r\n" if pause else head + b"0\r\n\r\n").status == 413


@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
def test_health_takes_no_body_whenever_it_comes(
    single: Service, method: bytes, pause: bool
) -> None:
    head = method + b" /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    with Wire(single.url) as wire:
        if pause:
            wire.send(head)
        wire.send(b"hello" if pause else head + b"hello")
        status_and_fields = wire._until(b"\r\n\r\n")
        assert status_and_fields.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nConnection: close" in status_and_fields
        if method == b"HEAD":
            assert wire.ended()  # no content in an answer to HEAD (RFC 9110, section 9.3.2)


def test_health_is_answered_to_head(single: Service) -> None:
    with Wire(single.url) as wire:
        wire.send(HEALTH.replace(b"GET", b"HEAD"))
        head = wire._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Length: 17" in head
        assert wire.ask(HEALTH).json() == {"status": "live"}


def test_heads_are_kept_by_nobody_but_their_connection(guarded: Service) -> None:
    worker = children(guarded.process.pid)[0]
    fields = [f"X-{number}: {'x' * 8_000}" for number in range(15)]
    with Wire(guarded.url) as wire:
        assert wire.ask(post(BODY, *fields)).status == 401
        before = memory_mib(worker)
        for number in range(300):
            assert wire.ask(post(BODY, *fields, f"X-Number: {number}")).status == 401
    assert memory_mib(worker) - before < 8


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (f"X: {'x' * 8_190}", 431),
        ("Host: a..b", 400),
        ("Host: y", 400),
        ("Host : y", 400),
        ("X_: y", 200),
    ],
)
def test_every_route_refuses_the_same_heads(single: Service, field: str, status: int) -> None:
    for request in (
        post(BODY, field),
        HEALTH.replace(b"\r\n\r\n", f"\r\n{field}\r\n\r\n".encode()),
    ):
        if field == "Host: a..b":
            request = request.replace(b"Host: x\r\n", b"")
        assert ask(single, request).status == status


def test_the_script_name_of_a_client_is_ignored(single: Service) -> None:
    assert ask(single, post(BODY, "SCRIPT_NAME: /policy", "Script-Name: /policy")).status == 200
    request = b"GET /models HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /policy\r\n\r\n"
    assert ask(single, request).status == 200


@pytest.mark.long
@pytest.mark.parametrize("kept", [False, True])
def test_idle_connections_give_way_kept_or_new(
    trained: Trained, tmp_path: Path, kept: bool
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    stack = ExitStack()
    try:
        service = stack.enter_context(
            running_service(trained.models, tmp_path / "log", "--workers", "1")
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with stack:
        PolicyClient(service.url).wait_until_ready(60)
        wires = [stack.enter_context(Wire(service.url)) for _ in range(80 if kept else 150)]
        if kept:
            wrong = HEALTH.replace(b"live", b"none")
            assert {wire.ask(wrong).status for wire in wires} == {404}
            wires += [stack.enter_context(Wire(service.url)) for _ in range(70)]
        time.sleep(1.5)
        with Wire(service.url) as wire:
            started = time.monotonic()
            assert wire.ask(post()).status == 200
            assert time.monotonic() - started < 10.0
        assert wires
        lines = (tmp_path / "log").read_text().count("could not be accepted")
        assert lines <= 1


def test_the_largest_gives_way_to_the_small(trained: Trained, tmp_path: Path) -> None:
    options = ("--workers", "1", "--max-body-bytes", "100000", "--client-timeout", "60")
    with (
        running_service(trained.models, tmp_path / "log", *options) as service,
        ExitStack() as stack,
    ):
        PolicyClient(service.url).wait_until_ready(60)
        large = [stack.enter_context(Wire(service.url)) for _ in range(9)]
        head = post(b"", "Content-Length: 99000", length=False)
        for wire in large:
            wire.send(head + b" " * 98_900)
        with Wire(service.url) as wire:
            request = post()
            wire.send(request[:50])
            time.sleep(0.3)
            assert wire.ask(request[50:]).status == 200
        statuses = set()
        for wire in large[:1] + large[-1:]:
            wire.socket.settimeout(0.3)
            try:
                statuses.add(wire.answer().status)
            except TimeoutError:
                statuses.add(0)
        assert statuses <= {0, 503}
        assert ask(service, post()).status == 200


def test_what_can_be_decided_in_this_iteration_is_never_shed(single: Service) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(single.url)) for _ in range(300)]
        for wire in wires:
            wire.send(post())
        assert {wire.answer().status for wire in wires} == {200}


def test_answered_connections_hold_nothing_of_their_request(guarded: Service) -> None:
    worker = children(guarded.process.pid)[0]
    body = b" " * (8 * MIB)
    with ExitStack() as stack:
        before = memory_mib(worker)
        for _ in range(10):
            wire = stack.enter_context(Wire(guarded.url))
            assert wire.ask(with_key(body)).status == 400
        assert memory_mib(worker) - before < 40


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
        (b"GET /health/live HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (post(BODY, "Transfer-Encoding: gzip, chunked", length=False), 501),
        (post(b"10000000000000003\r\nabc\r\n", "Transfer-Encoding: chunked", length=False), 400),
    ],
)
def test_what_breaks_the_rules_is_refused_with_a_date(
    single: Service, request_: bytes, status: int
) -> None:
    with Wire(single.url) as wire:
        answer = wire.ask(request_)
        assert answer.status == status
        assert answer.fields["date"].endswith(" GMT")
        assert wire.ended()


@pytest.mark.parametrize(
    ("field", "status"), [("Expect: 200-ok", 417), ("Transfer-Encoding: gzip, chunked", 501)]
)
def test_what_is_not_supported_is_said_in_the_shape_of_the_path(
    single: Service, field: str, status: int
) -> None:
    head = post(b"", field, length=False).replace(b"/act", b"/v2/models/cartpole/infer")
    answer = ask(single, head)
    assert answer.status == status
    assert list(answer.json()) == ["error"]
    assert f'"status": {status}' in single.log.read_text()


def test_connection_is_a_list(single: Service) -> None:
    with Wire(single.url) as wire:
        answer = wire.ask(post(BODY, "Connection: keep-alive, close"))
        assert answer.fields["connection"] == "close"
        assert wire.ended()


def test_expect_is_ignored_in_http_1_0(single: Service) -> None:
    head = post(b"", "Expect: 100-continue", f"Content-Length: {len(BODY)}", length=False)
    with Wire(single.url) as wire:
        answer = wire.ask(head.replace(b"HTTP/1.1", b"HTTP/1.0"), BODY)
        assert answer.status == 200


def test_an_empty_line_after_a_body_is_no_request(trained: Trained, tmp_path: Path) -> None:
    # Two seconds, which a busy machine does not take to read a request.
    options = ("--workers", "1", "--client-timeout", "2")
    with running_service(trained.models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with Wire(service.url) as wire:
            assert wire.ask(post() + b"\r\n").status == 200
            time.sleep(4)  # no 408
            assert wire.ask(post()).status == 200


def test_a_seed_is_the_same_by_every_way(single: Service) -> None:
    answers = set()
    for request in (
        post(),
        post(),
        post(chunked(BODY, 3), "Transfer-Encoding: chunked", length=False),
    ):
        answers.add(json.dumps(ask(single, request).json(), sort_keys=True))
    assert len(answers) == 1
