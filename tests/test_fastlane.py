"""The way around Flask gives the answers that the way through it gives, and takes no liberties."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fastlane import FastLane
from serving.keys import Keys
from serving.metrics import Metrics
from serving.repository import Repository
from serving.settings import Settings
from tests.conftest import Service, Trained
from tests.test_act import NAMES, ROW

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def repository(trained: Trained) -> Repository:
    loaded = Repository(Settings(models=trained.models), Metrics())
    loaded.refresh()
    return loaded


def lane(repository: Repository, *keys: str, **changed: Any) -> FastLane:
    return FastLane(repository, Settings(**changed), Metrics(), Keys(list(keys)))


def request(body: bytes = b'{"observation": [0, 0, 0, 0]}', *lines: str) -> bytes:
    head = ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(["POST /act HTTP/1.1", *head, "", ""]).encode() + body


def taken(fast_lane: FastLane, sent: bytes) -> bool:
    (answer,) = fast_lane.answer([sent])
    assert answer is None or answer.startswith(b"HTTP/1.1 200 OK\r\n")
    return answer is not None


def test_plain_requests_are_taken(repository: Repository) -> None:
    fast_lane = lane(repository)
    assert taken(fast_lane, request())
    assert taken(fast_lane, request(b'{"observation": [9, 0, 0, 0], "seed": 1}'))
    assert taken(
        fast_lane, request(b'{"observations": [[0, 0, 0, 0]]}', "User-Agent: x", "Accept: */*")
    )


@pytest.mark.parametrize(
    "sent",
    [
        request().replace(b"POST /act ", b"GET /act "),
        request().replace(b" /act ", b" /act?x=1 "),
        request().replace(b" /act ", b" /models/cartpole/act "),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"application/json", b"text/plain"),
        request().replace(b"application/json", b"application/json; charset=latin-1"),
        request().replace(b"Host: x\r\n", b""),
        request().replace(b"Host: x\r\n", b"Host: x\r\nHost: y\r\n"),
        request().replace(b"Host: x", b"Host : x"),
        request().replace(b"Host: x", b"Host: \xff"),
        request().replace(b"Host: x\r\n", b"Host: x\r\n y\r\n"),
        request(b"{}", "Connection: close"),
        request(b'{"observation": [0, 0, 0, 0]}', "Connection: close"),
        request(b'{"observation": [0, 0, 0, 0]}', "Transfer-Encoding: chunked"),
        request(b'{"observation": [0, 0, 0, 0]}', "Content-Encoding: identity"),
        request(b'{"observation": [0, 0, 0, 0]}', "Content-Length: 29"),
        request(b'{"observation": [0, 0, 0, 0]}', "Expect: 100-continue"),
        request(b'{"observation": [0, 0, 0, 0]}', "X-Request-ID: mine"),
        request(b'{"observation": [0, 0, 0]}'),
        request(b'{"observation": [0, 0, 0, 0], "seed": 1, "seed": 2}'),
        request(b"not JSON"),
    ],
)
def test_what_is_out_of_the_ordinary_or_wrong_goes_the_ordinary_way(
    repository: Repository, sent: bytes
) -> None:
    assert not taken(lane(repository), sent)


def test_a_request_without_a_valid_key_goes_the_ordinary_way(repository: Repository) -> None:
    body = b'{"observation": [0, 0, 0, 0]}'
    fast_lane = lane(repository, KEY)
    assert taken(fast_lane, request(body, f"Authorization: Bearer {KEY}"))
    assert not taken(fast_lane, request(body))
    assert not taken(fast_lane, request(body, f"Authorization: Bearer {KEY}x"))


def test_when_all_requests_are_logged_all_go_the_ordinary_way(repository: Repository) -> None:
    assert not taken(lane(repository, log_requests="all"), request())


def test_requests_that_arrive_together_get_what_each_had_got_alone(repository: Repository) -> None:
    fast_lane = lane(repository)
    sent = [
        request(json.dumps({"observations": rows, "seed": seed, "deterministic": greedy}).encode())
        for rows, seed, greedy in [
            ([ROW], 1, False),
            ([ROW, [3.0, 0, 0, 0]], 2, False),
            ([ROW] * 5, 1, True),
            ([[-0.1, 0, 0.1, 0]], 2**53 - 1, False),
        ]
    ]
    sent.insert(2, request(b"not JSON"))

    def bodies(answers: list[bytes | None]) -> list[bytes | None]:
        return [answer and answer.partition(b"\r\n\r\n")[2] for answer in answers]

    together = bodies(fast_lane.answer(sent))
    assert together == [bodies(fast_lane.answer([one]))[0] for one in sent]
    assert together[2] is None
    assert json.loads(together[1] or b"")["warnings"][0].startswith("observations[1]: ")


@pytest.fixture(scope="module")
def pool(service: Service) -> Iterator[urllib3.HTTPConnectionPool]:
    with urllib3.connection_from_url(service.url) as connections:
        yield connections


numbers = st.floats(allow_nan=False, width=32) | st.integers(-5, 5)
rows = st.lists(numbers, min_size=3, max_size=5) | st.fixed_dictionaries(
    dict.fromkeys(NAMES, numbers)
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {"seed": st.integers(-1, 2**53)},
        optional={
            "observations": st.lists(rows, max_size=20),
            "observation": rows,
            "deterministic": st.booleans() | st.none(),
        },
    )
)
def test_both_ways_answer_every_body_the_same(
    pool: urllib3.HTTPConnectionPool, body: dict[str, Any]
) -> None:
    def ask(**more: str) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": "application/json"} | more
        return pool.urlopen("POST", "/act", body=json.dumps(body), headers=headers, retries=False)

    fast, ordinary = ask(), ask(Pragma="no-cache")  # a header that the fast lane does not know
    assert fast.status == ordinary.status
    assert fast.data == ordinary.data
    assert {name.lower() for name in fast.headers} == {name.lower() for name in ordinary.headers}
    for name in set(fast.headers) - {"Date", "X-Request-ID"}:
        assert fast.headers[name] == ordinary.headers[name]
