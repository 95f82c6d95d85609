"""The client and answers that are none of the service: a `ServiceError` each, and nothing else."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client import PolicyClient, ServiceError
from tests.conftest import Service, Trained
from tests.decision_logs import recording_service
from tests.test_act import ROW


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """An address whose connections get these bytes, and are closed if there are any."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if not answer:
                    connections.append(connection)
                    continue
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


def http(status: str, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def own_card(client: PolicyClient) -> object:
    return client.policy_card()


def card_of_x(client: PolicyClient) -> object:
    return client.policy_card("x")


def decide(client: PolicyClient) -> object:
    return client.act([ROW])


@pytest.mark.parametrize(
    ("answer", "ask"),
    [
        (http("500 Oops", b'{"detail": "\xe9"}'), decide),  # a proxy's, in latin-1
        (http("200 OK", b"{}"), card_of_x),
        (http("200 OK", b"[]"), card_of_x),
        (http("200 OK", b"null"), card_of_x),
        (http("200 OK", b'{"models": []}'), own_card),
        (http("302 Found", b"", "Location: http://[bad"), own_card),
        (http("200 OK", b'{"policy": {"a": ' + b"1" * 5000 + b"}}"), card_of_x),
        (http("200 OK", b'{"policy": "\xe9"}'), card_of_x),
        (http("200 OK", b'{"policy": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), card_of_x),
        (http("200 OK", b'{"x":' * 100_000), decide),
        (http("422 Oops", b'{"x":' * 100_000), decide),
        (http("503 Busy", b"{}", "Retry-After: Mon, 1 Nov 99999999999 00:00:00 GMT"), decide),
    ],
)
def test_what_is_no_answer_of_the_service_is_a_service_error(
    answer: bytes, ask: Callable[[PolicyClient], object]
) -> None:
    with answering(answer) as url, PolicyClient(url) as client, pytest.raises(ServiceError):
        ask(client)


def test_a_service_that_says_nothing_is_not_waited_for_longer_than_was_asked() -> None:
    with answering(b"") as url, PolicyClient(url, timeout=60) as client:
        started = time.monotonic()
        with pytest.raises(ServiceError, match="does not answer"):
            client.wait_until_ready(0.5)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("name", [".", "..", "...", "a/../b"])
def test_a_model_is_the_one_that_was_named(service: Service, name: str) -> None:
    with PolicyClient(service.url) as client, pytest.raises(ServiceError) as refused:
        client.act([ROW], model=name)
    assert refused.value.status == 404


def test_feedback_takes_the_numbers_that_environments_give(
    trained: Trained, tmp_path: Path
) -> None:
    with (
        recording_service(trained.models, tmp_path, workers=1) as service,
        PolicyClient(service.url) as client,
    ):
        client.wait_until_ready(60)
        given: dict[str, Any] = {"step": np.int64(1), "ended": np.bool_(True)}
        client.feedback(episode="a", rewards=[1.0], **given)
