"""The way around Flask gives the answers that the way through it gives, and takes no liberties."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.keys import Keys
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.server.fastlane import FastLane
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


def test_a_request_that_fails_does_not_fail_those_beside_it(repository: Repository) -> None:
    good = [
        b'{"observation": [0.01, -0.02, 0.03, 0.04], "seed": 3}',
        b'{"observations": [[1, 2, 3, 4], [9, 9, 9, 9]], "seed": 4}',
        json.dumps({"observation": dict(zip(NAMES, ROW, strict=True)), "seed": 5}).encode(),
    ]
    bad = [
        b'{"observations": []}',
        b'{"observations": [[1, 2, 3, 4], [1, 2, 3]]}',
        b'{"observation": [1, 2, 3, 1e39]}',
        b'{"observation": {"cart_position": 1}}',
    ]
    fast_lane = lane(repository)

    def bodies(*sent: bytes) -> list[bytes | None]:
        answers = fast_lane.answer([request(body) for body in sent])
        return [answer and answer.partition(b"\r\n\r\n")[2] for answer in answers]

    alone = [bodies(body)[0] for body in good]
    assert None not in alone
    for failing in bad:
        assert bodies(failing) == [None]
        assert bodies(failing, *good, failing) == [None, *alone, None]


def test_requests_are_counted_once_each_though_one_of_them_fails(repository: Repository) -> None:
    metrics = Metrics()
    fast_lane = FastLane(repository, Settings(), metrics, Keys([]))
    rows = [1, 1, 3, 20]
    sent = [request(json.dumps({"observations": [ROW] * count}).encode()) for count in rows]
    fast_lane.answer([*sent, request(b'{"observations": [[1, 2, 3]]}')])
    fast_lane.answer(sent)
    text = metrics.text().decode()
    labels = 'model="cartpole"'
    assert f"policy_batch_rows_sum{{{labels}}} {2.0 * sum(rows)}" in text
    for bound, count in [("1.0", 4.0), ("4.0", 6.0), ("16.0", 6.0), ("64.0", 8.0), ("+Inf", 8.0)]:
        assert f'policy_batch_rows_bucket{{le="{bound}",{labels}}} {count}' in text
    assert 'policy_http_requests_total{route="/act",status="200"} 8.0' in text
    assert 'policy_http_request_seconds_count{route="/act"} 8.0' in text


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
