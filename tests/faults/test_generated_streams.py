"""Generated streams have the request boundaries that h11 sees in them, or are refused."""

import re
import secrets
import socket
from urllib.parse import unquote_to_bytes, urlsplit

import h11
import pytest

from tests.faults.framing import Outcome, Seen, ours_of
from tests.faults.streams import Generator

STREAMS = 5_000
MANY_STREAMS = 200_000
# What h11 says of them, once it has the head.
BAD_TRAILERS = ("illegal header line", "continuation line at start of headers")


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
