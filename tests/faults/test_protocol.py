"""HTTP in all the ways that clients speak it, against the real service."""

import pytest

from tests.conftest import Service
from tests.faults.wire import BODY, HEALTH, Wire, children, chunked, post

LARGE = b'{"observations":[' + b",".join([b"[0.01,-0.02,0.03,0.04]"] * 10_000) + b"]}"


def numbered(seed: int) -> bytes:
    return post(b'{"observation":[0,0,0,0],"seed":%d}' % seed)


def test_a_request_may_be_split_at_any_byte(service: Service) -> None:
    request = post()
    with Wire(service.url) as wire:
        for place in range(1, len(request)):
            answer = wire.ask(request[:place], request[place:])
            assert answer.status == 200, (place, answer)
            assert answer.json()["seed"] == 7


def test_requests_in_one_packet_are_answered_in_their_order(service: Service) -> None:
    requests = [numbered(seed) for seed in range(50)]
    requests[10] = post(LARGE)  # handled in a thread
    requests[20] = post(
        chunked(BODY, 9, "X-Trailer: a"), "Transfer-Encoding: chunked", length=False
    )
    requests[30] = post(b"not JSON")
    with Wire(service.url) as wire:
        wire.send(b"".join(requests))
        answers = [wire.answer() for _ in requests]
        assert wire.ask(HEALTH).json() == {"status": "live"}
    assert [place for place, answer in enumerate(answers) if answer.status != 200] == [30]
    seeds = [answer.json().get("seed") for answer in answers]
    assert [seeds[place] for place in range(50) if place not in (10, 20, 30)] == [
        seed for seed in range(50) if seed not in (10, 20, 30)
    ]
    assert len(answers[10].json()["actions"]) == 10_000
    assert seeds[20] == 7


def test_what_came_before_a_client_closed_its_side_is_answered(service: Service) -> None:
    for request in (numbered(1), post(LARGE)):
        with Wire(service.url) as wire:
            wire.send(request * 5 + request[:20])
            wire.socket.shutdown(1)
            assert [wire.answer().status for _ in range(5)] == [200] * 5
            assert wire.ended()


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize("trailers", [[], ["X-One: 1", "X-Two: 2"]])
def test_a_body_may_come_in_chunks(service: Service, size: int, trailers: list[str]) -> None:
    request = post(chunked(BODY, size, *trailers), "Transfer-Encoding: chunked", length=False)
    with Wire(service.url) as wire:
        assert wire.ask(request).json()["seed"] == 7
        assert wire.ask(request, HEALTH).json()["seed"] == 7
        assert wire.answer().status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"1 ;a\x00\r\nx\r\n0\r\n\r\n",
    ],
)
def test_bad_chunks_are_the_clients_mistake(service: Service, body: bytes) -> None:
    with Wire(service.url) as wire:
        answer = wire.ask(post(body, "Transfer-Encoding: chunked", length=False))
        assert answer.status == 400
        assert answer.fields["content-type"] == "application/problem+json"
        assert wire.ended()


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: {n}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: {n}"],
        ["Content-Length: {n}", "Content-Length: 0"],
        ["Content-Length: {n}, {n}"],
        ["Content-Length: +{n}"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding : chunked"],
        ["X: y\n Transfer-Encoding: chunked"],
    ],
)
def test_a_request_that_could_end_in_two_places_is_refused_with_all_that_follows(
    service: Service, fields: list[str]
) -> None:
    body = b"0\r\n\r\n" + numbered(666)
    request = post(body, *[line.format(n=len(body)) for line in fields], length=False)
    with Wire(service.url) as wire:
        assert wire.ask(request + numbered(667)).status in (400, 501)
        assert wire.ended()  # no answer to anything that was smuggled in


def test_zeros_before_a_length_mean_nothing(service: Service) -> None:
    request = post(BODY, f"Content-Length: {len(BODY):040}", length=False)
    with Wire(service.url) as wire, Wire(service.url) as other:
        wire.send(request[:-10])  # the rest is waited for, and nobody waits with it
        assert other.ask(HEALTH).status == 200
        assert wire.ask(request[-10:]).json()["seed"] == 7
        assert wire.ask(HEALTH).status == 200


@pytest.mark.parametrize("length", [16 * 1024 * 1024 + 1, 10**18])
@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]])
def test_a_body_that_is_declared_too_large_is_refused_before_it_comes(
    service: Service, length: int, expect: list[str]
) -> None:
    with Wire(service.url) as wire:
        answer = wire.ask(post(b"", f"Content-Length: {length}", *expect, length=False))
        assert answer.status == 413
        assert answer.fields["connection"] == "close"
        assert wire.ended()


def test_a_body_in_chunks_that_becomes_too_large_is_refused(service: Service) -> None:
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with Wire(service.url) as wire:
        wire.send(post(b"", "Transfer-Encoding: chunked", length=False))
        for _ in range(17):
            wire.send(chunk)
        answer = wire.answer()
        assert answer.status == 413
        assert answer.fields["connection"] == "close"
        assert wire.ended()


def test_a_body_that_nobody_reads_does_not_end_the_connection(service: Service) -> None:
    text = post(LARGE * 5).replace(b"application/json", b"text/plain")
    with Wire(service.url) as wire:
        for _ in range(3):
            assert wire.ask(text).status == 415
        assert wire.ask(numbered(1)).json()["seed"] == 1


def test_a_client_that_expects_to_be_told_is_told_to_go_on(service: Service) -> None:
    head = post(b"", "Expect: 100-continue", f"Content-Length: {len(BODY)}", length=False)
    with Wire(service.url) as wire:
        assert wire.ask(head).status == 100
        assert wire.ask(BODY).json()["seed"] == 7
        # With the body there, there is nothing to be told.
        assert wire.ask(head + BODY).json()["seed"] == 7
        assert wire.ask(post(BODY, "Expect: a miracle")).status == 417


@pytest.mark.parametrize(
    ("version", "fields", "keeps"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
    ],
)
def test_a_connection_is_kept_as_the_client_asks(
    service: Service, version: str, fields: list[str], keeps: bool
) -> None:
    with Wire(service.url) as wire:
        answer = wire.ask(post(BODY, *fields, version=version))
        assert answer.json()["seed"] == 7
        assert answer.fields["connection"] == ("keep-alive" if keeps else "close")
        if keeps:
            assert wire.ask(HEALTH).status == 200
        else:
            assert wire.ended()


def test_connections_that_break_off_at_any_byte_harm_nobody(service: Service) -> None:
    before = children(service.process.pid)
    expecting = post(b"", "Expect: 100-continue", "Content-Length: 10", length=False)
    for request in (post(), expecting, post(LARGE)):
        for place in range(0, len(request) + 1, max(1, len(request) // 50)):
            Wire(service.url).send(request[:place]).reset()
    with Wire(service.url) as wire:
        assert wire.ask(post()).status == 200
    assert children(service.process.pid) == before
