"""Where a request ends does not depend on how its bytes arrive, nor on who reads them."""

import itertools
import random
import re
import secrets
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.budget import Budget
from serving.errors import ProblemError
from serving.server.clock import Clock
from serving.server.connection import Connection, Limits
from serving.server.parser import MAX_HEAD_BYTES, Head, RequestParser

MAX_BODY_BYTES = 1_000
STREAMS = 5_000
MANY_STREAMS = 200_000
# What h11 says of them, once it has the head.
BAD_TRAILERS = ("illegal header line", "continuation line at start of headers")


class Seen(NamedTuple):
    """A request as a parser read it."""

    method: str
    path: str  # percent-decoded
    query: str
    body: bytes


class Outcome(NamedTuple):
    requests: list[Seen]
    end: str  # "waits" for more, "closed" after the last request, or "refused"


class Refusals:
    """The owner of a connection: remembers the statuses of what was refused."""

    def __init__(self) -> None:
        self.statuses: list[HTTPStatus] = []

    def admit(self, _head: Head) -> None:
        pass

    def refusal(self, error: ProblemError, _head: Head | None) -> bytes:
        self.statuses.append(HTTPStatus(error.status))
        return b"refused"


class Ours:
    """A `Connection` and the socket of its client."""

    def __init__(self, listener: socket.socket) -> None:
        self.client = socket.create_connection(listener.getsockname())
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server, remote = listener.accept()
        self.refusals = Refusals()
        self.budget = Budget(1 << 30)
        limits = Limits(self.budget, Clock(), MAX_BODY_BYTES, 10.0, 75.0)
        self.connection = Connection(server, remote, self.refusals, limits)
        self.requests: list[Seen] = []
        self.end = "waits"

    def close(self) -> None:
        self.client.close()
        self.connection.close()

    def send(self, piece: bytes) -> None:
        """Let the connection read a piece, and answer every request that is whole with it."""
        if self.end != "waits":
            return
        self.client.sendall(piece)
        self.connection.receive()
        while self.connection.is_ready():
            head, body = self.connection.take()
            self.requests.append(Seen(head.method, head.path, head.query, body))
            self.connection.answer(b"", keep=head.keep_alive)
            if not head.keep_alive:
                self.end = "closed"
        if self.refusals.statuses:
            self.end = "refused"

    def outcome(self, pieces: list[bytes]) -> Outcome:
        for piece in pieces:
            if piece:
                self.send(piece)
        return Outcome(self.requests, self.end)


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def ours(listener: socket.socket) -> Iterator[Ours]:
    with closing(Ours(listener)) as connected:
        yield connected


def ours_of(listener: socket.socket, pieces: list[bytes]) -> Outcome:
    with closing(Ours(listener)) as connected:
        return connected.outcome(pieces)


def refused(data: bytes) -> HTTPStatus:
    """The status with which the parser refuses what it is given; fails if it does not."""
    with pytest.raises(ProblemError) as caught:
        RequestParser(MAX_BODY_BYTES).feed(data)
    return HTTPStatus(caught.value.status)


# Good requests, in any pieces


class Sent(NamedTuple):
    seen: Seen
    raw: bytes


def with_length(number: int, body: bytes, zeros: int) -> Sent:
    head = f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {'0' * zeros}{len(body)}\r\n\r\n"
    return Sent(Seen("POST", f"/{number}", "", body), head.encode() + body)


def without_body(number: int) -> Sent:
    head = f"GET /{number}?a=b HTTP/1.1\r\nHost: x\r\n\r\n"
    return Sent(Seen("GET", f"/{number}", "a=b", b""), head.encode())


def in_chunks(
    number: int, chunks: list[bytes], extension: bytes, zeros: int, trailers: list[bytes]
) -> Sent:
    head = f"POST /{number} HTTP/1.1\r\nHost: x\r\ntransfer-ENCODING:\tChunked \r\n\r\n"
    lines = [
        b"%0*x%b\r\n%b\r\n" % (zeros, len(chunk), extension, chunk) for chunk in chunks if chunk
    ]
    last = b"".join([b"0" * zeros, extension, b"\r\n", *trailers, b"\r\n"])
    seen = Seen("POST", f"/{number}", "", b"".join(chunks))
    return Sent(seen, head.encode() + b"".join(lines) + last)


# Bodies that look like what ends a request, or begins one.
bodies = st.sampled_from([b"\r\n0\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]) | st.binary(
    max_size=40
)
numbers = st.integers(0, 9)
requests = st.one_of(
    st.builds(with_length, numbers, bodies, st.sampled_from([0, 1, 15])),
    st.builds(without_body, numbers),
    st.builds(
        in_chunks,
        numbers,
        st.lists(bodies, max_size=4),
        st.sampled_from([b"", b";a", b';a="b"']),
        st.sampled_from([1, 5, 15]),
        st.lists(st.sampled_from([b"X: 0\r\n", b"Y: z\r\n"]), max_size=2),
    ),
)


@given(st.lists(requests, max_size=5), st.data())
def test_any_split_of_any_requests_gives_the_same_requests(
    listener: socket.socket, sent: list[Sent], data: st.DataObject
) -> None:
    raw = b"".join(request.raw for request in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(raw)])]
    with closing(Ours(listener)) as connected:
        assert connected.outcome(pieces) == ([request.seen for request in sent], "waits")
        assert connected.connection.held_bytes == connected.budget.held == 0


@given(requests)
def test_a_request_in_single_bytes_is_whole_with_its_last_byte(
    listener: socket.socket, sent: Sent
) -> None:
    with closing(Ours(listener)) as connected:
        for byte in sent.raw[:-1]:
            connected.send(bytes([byte]))
        assert connected.requests == []
        connected.send(sent.raw[-1:])
        assert connected.requests == [sent.seen]


def test_a_head_that_comes_again_is_known_only_with_its_blank_line(ours: Ours) -> None:
    first = without_body(1)
    longer = first.raw[:-2] + b"Content-Length: 3\r\n\r\nabc"
    ours.outcome([first.raw, first.raw, longer, first.raw, first.raw[:9], first.raw[9:]])
    assert ours.requests == [first.seen] * 2 + [first.seen._replace(body=b"abc")] + [first.seen] * 2
    ours.outcome([first.raw, first.raw[:-2] + b"A:"])
    assert ours.requests[5:] == [first.seen]
    ours.send(b"\r\n\r\n")
    assert ours.requests[5:] == [first.seen] * 2


def test_the_second_half_of_a_head_is_no_head(ours: Ours) -> None:
    first = with_length(1, b"abc", 0)
    assert ours.outcome([first.raw[:20], first.raw[20:], first.raw[20:]]) == (
        [first.seen],
        "refused",
    )


def test_a_known_head_does_not_take_what_follows_its_request_for_a_part_of_it(ours: Ours) -> None:
    first, other = with_length(1, b"abc", 0), without_body(2)
    both = first.raw + other.raw
    ours.outcome([first.raw, both, both, first.raw, both, first.raw + b"GET", b"\n\r\n"])
    seen = first.seen, other.seen
    assert ours.requests == [first.seen, *seen, *seen, first.seen, *seen, first.seen]
    assert ours.end == "refused"


def test_what_follows_a_body_of_chunks_is_whole_however_much_it_is(ours: Ours) -> None:
    first, other = in_chunks(1, [b"x"] * MAX_BODY_BYTES, b";abcdef", 1, []), without_body(2)
    head = first.raw.index(b"\r\n\r\n") + 4
    ours.outcome([first.raw[:head], first.raw[head:] + other.raw * 1_000])
    assert ours.requests == [first.seen] + [other.seen] * 1_000


def test_no_head_is_known_after_a_refusal(listener: socket.socket, ours: Ours) -> None:
    good = without_body(1)
    assert ours.outcome([good.raw, b"\n\r\n", good.raw]) == ([good.seen], "refused")
    assert ours_of(listener, [good.raw[:-2] + b"\n"]) == ([], "refused")


# Requests that are refused


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5_0",
        "Content-Length: \u00b2",
        "Content-Length: five",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "A: b\r\n Content-Length: 5",
        "A: b\nContent-Length: 5",
        "A: b\rContent-Length: 5",
        "A: b\0",
        ": b",
        "Host: x",
        "Host: a..b",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_by_its_head(ours: Ours, fields: str) -> None:
    # Two of "Host: x" are one too many, and a wrong one is beside a good one too.
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode("latin-1")
    assert ours.outcome([head, b"0\r\n\r\n"]) == ([], "refused")
    assert ours.refusals.statuses[0] in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED)


@pytest.mark.parametrize(
    "head",
    [
        "GET /\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\n",
        "GET / HTTP/1.1\rHost: x\r\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x y\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET /\t HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\u00e9 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET :// HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET -http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\0GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_1_is_refused(ours: Ours, head: str) -> None:
    assert ours.outcome([head.encode("latin-1")]) == ([], "refused")


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n\r\n",
        b"5_0\r\n\r\n",
        b"-1\r\n\r\n",
        b"0x1\r\n\r\n",
        b"\r\n\r\n",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1\r\nx0\r\n\r\n\r\n",
        b"1\nx\n0\n\n",
        b"0" * 9_000,
        b"1" + b"0" * 16 + b"\r\n",
        b"1\r\nx\r\n;\r\n\r\n",
        b"1;a\rb\r\nx\r\n0\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nA: b\n\r\n\r\n",
    ],
)
def test_bad_chunks_are_refused(ours: Ours, body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ours.outcome([head, body]) == ([], "refused")


# Limits


@pytest.mark.parametrize("digits", [4, 18, 19, 5_000])
def test_a_body_that_is_declared_too_long_is_not_waited_for(digits: int) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * digits}\r\n\r\n".encode()
    too_long = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.BAD_REQUEST
    assert refused(head) is too_long[digits > 18]


def test_a_body_of_the_greatest_length_is_read(ours: Ours) -> None:
    for sent in (
        with_length(1, b"x" * MAX_BODY_BYTES, 0),
        in_chunks(1, [b"x"] * MAX_BODY_BYTES, b"", 1, []),
    ):
        ours.send(sent.raw)
        assert ours.requests.pop() == sent.seen


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"fffff\r\n", b"fffffffffffffff\r\n"])
def test_chunks_beyond_the_limit_are_too_large(chunk: bytes) -> None:
    parser = RequestParser(MAX_BODY_BYTES)
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(ProblemError) as caught:
        any(parser.feed(chunk) for _ in range(MAX_BODY_BYTES + 1))
    assert caught.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize("follows", [b"", b"GET /"])
def test_the_limit_of_a_body_in_chunks_does_not_depend_on_how_it_arrives(
    listener: socket.socket, follows: bytes
) -> None:
    sent = in_chunks(1, [b"x"] * (MAX_BODY_BYTES // 2), b"", 1, [])
    head = sent.raw.index(b"\r\n\r\n") + 4
    whole = ours_of(listener, [sent.raw + follows])
    assert ours_of(listener, [sent.raw[:head], sent.raw[head:] + follows]) == whole


def test_a_body_in_small_chunks_takes_no_more_memory_than_its_length() -> None:
    size = 256 * 1024
    parser = RequestParser(8 * size)
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"2\r\nab\r\n" * 1024
    tracemalloc.start()
    try:
        for _ in range(size // 2048):
            parser.feed(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * size
    assert held <= 2 * parser.held_bytes


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"A: " + b"x" * 8_190, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"A: b\r\n" * 101, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"A: " + b"x" * MAX_HEAD_BYTES, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_a_head_beyond_the_limits_is_too_large_whatever_follows(
    fields: bytes, status: HTTPStatus, end: bytes
) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + end) is status


def test_a_target_beyond_the_limit_is_too_long() -> None:
    line = b"GET /" + b"x" * 4_094
    assert refused(line) is refused(line + b" HTTP/1.1\r\n") is HTTPStatus.REQUEST_URI_TOO_LONG


@pytest.mark.parametrize(
    ("version", "value", "expects"),
    [("1.1", "100-continue", True), ("1.1", "100-Continue", True), ("1.0", "100-continue", False)],
)
def test_a_client_that_waits_to_be_told_to_go_on_is_known(
    ours: Ours, version: str, value: str, expects: bool
) -> None:
    head = f"POST / HTTP/{version}\r\nHost: x\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n"
    ours.send(head.encode())
    assert ours.requests == []
    ours.client.setblocking(False)
    if expects:
        assert ours.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    else:
        with pytest.raises(BlockingIOError):
            ours.client.recv(100)
    ours.send(b"hello")
    assert [request.body for request in ours.requests] == [b"hello"]


def test_another_expectation_is_refused() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\n"
    assert refused(head) is HTTPStatus.EXPECTATION_FAILED


# Generated streams, against h11


class Generator:
    """Makes streams of requests, many of which are hostile."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def pieces(self) -> list[bytes]:
        """The stream, as it arrives."""
        requests = [self.request()]
        while self.random.random() < 0.6:
            again = self.random.random() < 0.3
            requests.append(requests[-1] if again else self.request())
        if self.random.random() < 0.4:
            at = self.random.randrange(len(requests))
            requests[at] = self.mutated(requests[at])
        if self.random.random() < 0.4:
            return requests
        stream = b"".join(requests)
        if self.random.random() < 0.02:
            return [stream[at : at + 1] for at in range(len(stream))]
        cuts = sorted(self.random.randrange(len(stream) + 1) for _ in range(self.pick(0, 1, 3, 9)))
        return [stream[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(stream)])]

    def pick(self, *choices: int) -> int:
        return self.random.choice(choices)

    def one(self, usual: str, *others: str, share: float = 0.04) -> str:
        """The usual text, but for a share of all times."""
        return self.random.choice(others) if self.random.random() < share else usual

    def request(self) -> bytes:
        method = self.random.choice(["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "x-Y!"])
        method = self.one(method, "CONNECT", "G T", "G@T", "", "\u00e9", share=0.02)
        target = self.random.choice(["/", "/act", "/a?b=c", "/%41%2f?%41", "//x/y?", "/a;b?c?d"])
        others = ("http://x/a?b", "HTTP://x:1", "https://x?a", "*", "x:1", "/\u00e9", "/#", "/ a")
        target = self.one(target, *others, "ftp://x/", "http:/x", "")
        version = self.one("HTTP/1.1", "HTTP/1.0", share=0.1)
        wrong = ("HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", "http/1.1", "HTTP/1", "")
        version = self.one(version, *wrong, share=0.02)
        gap = self.one(" ", "\t", "", "\x0b", "\r", share=0.01)
        line = f"{method} {target}{gap}{version}"
        framing, body = self.framing()
        lines = [*self.hosts(), *framing, *self.fields()]
        self.random.shuffle(lines)
        ends = [self.one("\r\n", "\n", "\r", "\r\r\n", share=0.004) for _ in range(len(lines) + 2)]
        head = "".join(itertools.chain(*zip([line, *lines, ""], ends, strict=True)))
        before = self.one("", "\r\n", "\r\n\r\n", "\n", "\r", " ", "\r\n \r\n", share=0.06)
        return (before + head).encode("latin-1") + body

    def hosts(self) -> list[str]:
        host = self.one("x", "x:80", "[::1]:1", "", "1.2.3.4", "a..b", "a b", "x:y", "@", share=0.1)
        return [f"Host: {host}"] * (1 if self.random.random() < 0.97 else self.pick(0, 2))

    def framing(self) -> tuple[list[str], bytes]:
        """Fields that tell where the body ends, and a body that may end there."""
        body = self.random.choice(
            [b"", b"hello", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
        )
        kind = self.random.random()
        if kind < 0.3:
            return [], b""
        if kind < 0.6:
            return [f"Content-Length: {len(body)}"], body
        if kind < 0.9:
            coding = self.random.choice(["chunked", "chunked", "Chunked", "\tchunked "])
            return [f"Transfer-Encoding: {coding}"], self.chunks(body)
        size = str(len(body))
        lengths = [
            *(size, f"+{size}", f"-{size}", f"0{size}", f"{size}, {size}", f"{size},9", f"{size} "),
            *(
                "",
                "x",
                "0x5",
                "\u00b2",
                "1_0",
                "1 0",
                "9" * 30,
                f"{size};a",
                f"{size}\x0b",
                f"\t{size}",
            ),
        ]
        codings = [
            *(
                "chunked",
                "identity",
                "gzip, chunked",
                "chunked, chunked",
                "chunked;a=b",
                "xchunked",
            ),
            *(
                "chunked,",
                ",chunked",
                "",
                "\x0bchunked",
                "chunked\x0c",
                '"chunked"',
                "chunked, identity",
            ),
        ]
        names = ["Content-Length", "Transfer-Encoding"]
        fields = []
        for _ in range(self.pick(1, 1, 2, 3)):
            name = self.random.choice(names)
            value = self.random.choice(lengths if name == names[0] else codings)
            name = self.one(name, f"{name} ", f" {name}", name.lower(), name.replace("-", "_"))
            fields.append(f"{name}: {value}")
        return fields, self.random.choice([body, self.chunks(body)])

    def chunks(self, body: bytes) -> bytes:
        chunks = []
        while body:
            size = self.random.randint(1, len(body))
            chunks.append((f"{size:x}", body[:size]))
            body = body[size:]
        lines = []
        for digits, chunk in chunks:
            # With more than 20 digits h11 refuses any number of zeros.
            others = (f"0{digits}", f"{'0' * 15}{digits}", f"+{digits}", f" {digits}", f"{digits} ")
            digits = self.one(digits, *others, f"0x{digits}", f"{digits}\t", share=0.1)
            huge = ("", "f" * 16, "1" + "0" * 16, "fffffff", "g", "1_0", "-1")
            lines.append(
                f"{self.one(digits, *huge, share=0.02)}{self.extension()}".encode("latin-1")
            )
            lines.append(self.one("\r\n", "\n", "\r", share=0.02).encode() + chunk)
            lines.append(self.one("\r\n", "\n", "", "\r\n\r\n", "x\r\n", share=0.03).encode())
        end = f"{self.one('0', '00', '0' * 17, '-0', '0 ', '', share=0.06)}{self.extension()}\r\n"
        trailers = (
            *(
                "A: b\r\n",
                "A: b\r\nC: d\r\n",
                "Content-Length: 5\r\n",
                "A\r\n",
                "A : b\r\n",
                " A: b\r\n",
            ),
            *("Transfer-Encoding: x\r\n", "A: b\n", "A: b\r\n c\r\n", "GET / HTTP/1.1\r\n"),
        )
        end += self.one("", *trailers, share=0.15) + self.one("\r\n", "\n", "", share=0.03)
        return b"".join(lines) + end.encode("latin-1")

    def extension(self) -> str:
        return self.one(
            "", ";a", ';a="b"', "; a = b", ";", ";\u00e9", ";a\nb", ";a\rb", ";\0", share=0.1
        )

    def fields(self) -> list[str]:
        connection = self.random.choice(
            ["keep-alive", "close", "Keep-Alive, Close", "x, close", "upgrade", "closed", ""]
        )
        good = (
            f"Connection: {connection}",
            f"Connection: {connection}\r\nConnection: keep-alive",
            "Upgrade: websocket\r\nConnection: Upgrade",
            "Upgrade: h2c",
            "Expect: 100-continue",
            "A: \u00e9",
            "A:",
            "Content-Type: application/json",
            "Keep-Alive: 5",
            "Content_Length: 9",
        )
        bad = (
            *("Expect: x", "A: b\r\n c", "A: b\r\n\tContent-Length: 3", "A: \x7f", "A: b\0c"),
            *("A: b\rc", "\u00e9: b", "A B: c", "A\t: c", "A", ":", '"A": b', "A: b\n"),
        )
        return [
            self.one(self.random.choice(good), *bad, share=0.1)
            for _ in range(self.pick(0, 0, 0, 0, 1, 1, 2))
        ]

    def mutated(self, request: bytes) -> bytes:
        at = self.random.randrange(len(request) + 1)
        inserted = self.random.choice(
            [
                b"",
                b"\r",
                b"\n",
                b"\r\n",
                b" ",
                b"\t",
                b"\0",
                b":",
                b";",
                b",",
                b"0",
                b"-",
                b"\x80",
                b"x",
            ]
        )
        return request[:at] + inserted + request[at + self.pick(0, 1, 1, 2) :]


def path_and_query(target: bytes) -> tuple[str, str]:
    """Of a target, which h11 leaves as it is."""
    text = target.decode("ascii")
    if text.lower().startswith(("http://", "https://")):
        text = text[text.index("://") + 3 :].removeprefix(urlsplit(text).netloc)
    path, _, query = text.partition("?")
    return unquote_to_bytes(path).decode("latin-1") or "/", query


def h11s(stream: bytes) -> Outcome:
    """What h11 reads of a stream, with a new reader for each request.

    Two things that we accept and h11 does not are known, and put right before it reads them:
    empty lines before a request line, which are to be ignored (RFC 9112, section 2.2), and more
    than one space between the parts of that line, which may be (section 3).
    """
    seen: list[Seen] = []
    while True:
        while stream.startswith(b"\r\n"):
            stream = stream[2:]
        stream = re.sub(rb"\A([^\s]+) +([^\s]+) +(HTTP/1\.[01]\r\n)", rb"\1 \2 \3", stream)
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(stream)
        end = read_by(reader, seen)
        if end != "kept":
            return Outcome(seen, end)
        stream = reader.trailing_data[0]


def read_by(reader: h11.Connection, seen: list[Seen]) -> str:
    """Read one request; says how it ends."""
    head, body = None, b""
    try:
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                head, path_query = event, path_and_query(event.target)
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return "waits"
    except (h11.RemoteProtocolError, UnicodeDecodeError) as error:
        if head is None or not str(error).startswith(BAD_TRAILERS):
            return "refused"
    assert head is not None
    seen.append(Seen(head.method.decode(), *path_query, body))
    if reader.their_state is h11.ERROR:
        return "trailers"
    reader.send(h11.Response(status_code=404, headers=[(b"Content-Length", b"0")]))
    reader.send(h11.EndOfMessage())
    connection = b",".join(text for name, text in head.headers if name == b"connection")
    tokens = {token.strip().lower() for token in connection.split(b",")}
    # h11 keeps no connection of HTTP/1.0, whatever its client says.
    old = head.http_version == b"1.0" and b"keep-alive" in tokens and b"close" not in tokens
    return "closed" if reader.our_state is h11.MUST_CLOSE and not old else "kept"


def disagreement(ours: Outcome, theirs: Outcome) -> str | None:
    """In which way we have read another boundary than h11 has; None where we have not.

    Trailers are skipped by us and checked by h11: what follows bad ones is not compared.
    """
    count = len(theirs.requests)
    if ours.requests[:count] != theirs.requests[: len(ours.requests)]:
        return "another request"
    if len(ours.requests) > count and theirs.end != "trailers":
        return f"a request though h11 {theirs.end}"
    if len(ours.requests) < count and ours.end == "waits":
        return "waits within a request that is whole"
    if len(ours.requests) == count and theirs.end == "closed" and ours.end == "waits":
        return "keeps a connection that ends"
    return None


def minimal(pieces: list[bytes], listener: socket.socket) -> bytes:
    """A stream with the same disagreement, from which no byte can be left out."""
    stream = b"".join(pieces)
    wanted = disagreement(ours_of(listener, [stream]), h11s(stream))
    at = 0
    while wanted is not None and at < len(stream):
        shorter = stream[:at] + stream[at + 1 :]
        if disagreement(ours_of(listener, [shorter]), h11s(shorter)) == wanted:
            stream = shorter
        else:
            at += 1
    return stream


def compare_streams(listener: socket.socket, count: int, seed: str) -> None:
    accepted = refusals = 0
    for number in range(count):
        pieces = Generator(f"{seed} {number}").pieces()
        stream = b"".join(pieces)
        split = ours_of(listener, pieces)
        theirs = h11s(stream)
        which = f"seed {seed!r}, stream {number}: {pieces}"
        whole = ours_of(listener, [stream])
        assert split.requests == whole.requests, which
        assert (split.end == "refused") == (whole.end == "refused"), which
        found = disagreement(split, theirs)
        assert found is None, f"{found}; {which}; least: {minimal(pieces, listener)!r}"
        accepted += len(split.requests)
        refusals += split.end == "refused"
    # It is of no use to compare what is always or never refused.
    assert accepted > count / 2
    assert count / 10 < refusals < count * 0.9


@pytest.mark.parametrize("count", [STREAMS, pytest.param(MANY_STREAMS, marks=pytest.mark.long)])
def test_generated_streams_have_the_boundaries_that_h11_sees_or_are_refused(
    listener: socket.socket, count: int
) -> None:
    compare_streams(listener, count, secrets.token_hex(4))
