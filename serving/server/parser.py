"""Parses HTTP/1.1 requests from the bytes of a connection (RFC 9112).

The parser is gunicorn's own in C, `gunicorn_h1c`; docs/architecture.md says why.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from gunicorn_h1c import H1CProtocol

from serving.errors import ProblemError, TooLargeError

MAX_REQUEST_LINE_BYTES = 4094
MAX_FIELDS = 100
MAX_FIELD_BYTES = 8190
MAX_HEAD_BYTES = 128 * 1024
_PIECE_BYTES = 8 * 1024
# A longer head is not remembered, so that an idle connection holds little memory.
_MAX_KNOWN_BYTES = 4 * 1024

# uri-host [":" port] of RFC 3986, section 3.2.2, with DNS names; it may be empty.
_HOST = re.compile(
    r"(?:(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_FIELDS_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_TOO_LONG = "the body is longer than allowed"
# By name: H1CProtocol raises other classes than its package exports under these names.
_STATUSES = {
    "LimitRequestLine": HTTPStatus.REQUEST_URI_TOO_LONG,
    "LimitRequestHeaders": _FIELDS_TOO_LARGE,
    "InvalidHTTPVersion": HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
}


class RefusedError(ProblemError):
    """A request that breaks the rules or a limit; its connection ends with the answer."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(slots=True)
class Head:
    """A request's head, parsed and checked."""

    method: str
    path: str  # percent-decoded UTF-8
    query: str  # what follows the question mark, as sent
    version: str  # "HTTP/1.0" or "HTTP/1.1"
    headers: Mapping[str, str]  # names in lower case; values of one name are joined with commas
    body_bytes: int | None  # None for a chunked body
    keep_alive: bool  # whether another request may follow
    expects_continue: bool  # whether the client waits for 100 before it sends the body
    route: Any = None  # set by the worker, so that a remembered head is routed only once


class Received(NamedTuple):
    """A whole request as it was received."""

    head: Head
    body: bytes


class RequestParser:
    """Reads the requests of one connection, one after the other.

    Between requests it holds what followed the last one, and that request's head, as bytes and
    parsed. If the next request begins with the same bytes, its head is not parsed again.

    Attributes:
        head: of the request that is being read; None until it is parsed.
        rest: what followed the last request.
    """

    def __init__(self, max_body_bytes: int, root_path: str = "") -> None:
        """Accept bodies of at most so many bytes, and remove `root_path` from paths."""
        self._max_body_bytes = max_body_bytes
        self._root_path = root_path
        self.clear()

    def clear(self) -> None:
        """Forget all that was received."""
        self._known: tuple[bytes, Head] | None = None
        self.rest = b""
        self._end_request()

    def _end_request(self) -> None:
        # The parser in C refers to this object: without this cycle, both are freed at once.
        self.head: Head | None = None
        self._parser: Any = None
        self._head_bytes = 0
        self._body = bytearray()

    @property
    def has_begun(self) -> bool:
        """Whether a part of a request has arrived."""
        return self._parser is not None

    @property
    def held_bytes(self) -> int:
        """How many of the received bytes are held."""
        return self._head_bytes + len(self._body) + len(self.rest)

    def feed(self, data: bytes) -> Received | None:
        """Parse more bytes, after those in `rest`; return a request once it is whole.

        Raises:
            ProblemError: it breaks the rules or a limit.
        """
        is_alone = not self.rest and self._parser is None
        data, self.rest = self.rest + data, b""
        if self._parser is None:
            if self._known is not None:
                raw, head = self._known
                if data.startswith(raw) and len(data) == len(raw) + (head.body_bytes or 0):
                    return Received(head, data[len(raw) :])
                self._known = None
            # Empty lines before a request line are ignored (RFC 9112, section 2.2).
            if empty := _EMPTY_LINES.match(data):
                data = data[empty.end() :]
            if data in (b"", b"\r"):
                self.rest = data
                return None
            self._parser = H1CProtocol(
                on_headers_complete=self._on_head,
                on_body=self._on_body,
                limit_request_line=MAX_REQUEST_LINE_BYTES,
                limit_request_fields=MAX_FIELDS,
                limit_request_field_size=MAX_FIELD_BYTES,
                limit_remaining=0,
            )
        for start in range(0, len(data), _PIECE_BYTES):
            self._feed(data[start : start + _PIECE_BYTES])
            if self._parser.is_complete:
                self.rest = self._parser.remaining() + data[start + _PIECE_BYTES :]
                return self._finish(data if is_alone else b"")
        return None

    def _feed(self, piece: bytes) -> None:
        in_head = self.head is None
        if in_head:
            self._head_bytes += len(piece)
        try:
            self._parser.feed(piece)
        except ValueError as error:
            status = _STATUSES.get(type(error).__name__, HTTPStatus.BAD_REQUEST)
            # Not the parser's own message: it quotes the request, which may hold a key.
            detail = "the request is not HTTP/1.1" if status == 400 else status.phrase
            raise RefusedError(status, detail) from error
        if self.head is None and self._head_bytes > MAX_HEAD_BYTES:
            raise RefusedError(_FIELDS_TOO_LARGE, "the head is longer than allowed")
        if in_head and self.head is not None:
            self._head_bytes -= len(self._body)  # it came in the same piece as the end of the head

    def _finish(self, data: bytes) -> Received:
        """The complete request; `data` has its bytes if it came in one piece, else it is empty."""
        head, body = self.head, bytes(self._body)
        assert head is not None
        self._end_request()
        size = len(data) - len(body)
        is_known = data and not self.rest and head.keep_alive and head.body_bytes is not None
        if is_known and size <= _MAX_KNOWN_BYTES:
            self._known = data[:size], head
        return Received(head, body)

    def _on_head(self) -> bool:
        self.head = head = _checked_head(self._parser)
        if self._root_path and head.path.startswith(f"{self._root_path}/"):
            head.path = head.path[len(self._root_path) :]
        if head.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding is chunked")
        if head.expects_continue and head.headers["expect"].lower() != "100-continue":
            detail = "the only expectation is 100-continue"
            raise RefusedError(HTTPStatus.EXPECTATION_FAILED, detail)
        if (head.body_bytes or 0) > self._max_body_bytes:
            raise TooLargeError(_TOO_LONG)
        return False  # read the body

    def _on_body(self, piece: bytes) -> None:
        if len(self._body) + len(piece) > self._max_body_bytes:
            raise TooLargeError(_TOO_LONG)
        self._body += piece


def _checked_head(parser: H1CProtocol) -> Head:
    """Check what the parser in C does not, and make the head.

    Raises:
        RefusedError: it breaks the rules.
    """
    is_current = parser.http_version == (1, 1)
    headers: dict[str, str] = {}
    for raw_name, raw_value in parser.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
        if name in headers:
            if name == "host":
                raise RefusedError(HTTPStatus.BAD_REQUEST, "there is more than one Host")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    host = headers.get("host")
    if (host is None and is_current) or (host is not None and not _HOST.fullmatch(host)):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "HTTP/1.1 needs one valid Host")
    target = parser.path.decode("latin-1")
    if not target.isascii() or "#" in target or parser.method == b"CONNECT":
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the request target is not a path")
    if target[0] not in "/*":
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the request target is not a path")
        target = target[absolute.end() :]
    path, _, query = target.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode(errors="replace")  # as Flask reads it
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return Head(
        method=parser.method.decode("latin-1"),
        path=path or "/",
        query=query,
        version="HTTP/1.1" if is_current else "HTTP/1.0",
        headers=headers,
        body_bytes=None if "transfer-encoding" in headers else parser.content_length or 0,
        keep_alive="close" not in connection and (is_current or "keep-alive" in connection),
        expects_continue=is_current and bool(headers.get("expect")),
    )
