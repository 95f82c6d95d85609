"""The body of a request: its bytes, and JSON of a given type."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import msgspec
from werkzeug.http import parse_options_header

from serving.api.budget import Budget
from serving.api.messages import Request
from serving.collection import collection
from serving.errors import (
    InvalidRequestError,
    NoMemoryError,
    NotJsonError,
    TooLargeError,
    UnsupportedCodingError,
    UnsupportedMediaTypeError,
)
from serving.settings import Settings

T = TypeVar("T")

# zlib's window sizes: plus 16 means gzip (RFC 1952); without, zlib, which HTTP calls deflate.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_PIECE_BYTES = 1024 * 1024
_PACKED_BYTES = 4 * 1024
LARGE_BYTES = 64 * 1024
# Larger bodies, which take about 2 ms (1,500 rows of four numbers), are not for a worker's loop.
INLINE_BYTES = 128 * 1024
# Values and lists of a request besides those of its rows: names, parameters, shapes.
_OTHER_VALUES = 1024


class BodyReader:
    """Reads bodies within the limits of the service.

    `widest` returns the length of the longest observation of any served policy.
    """

    def __init__(self, settings: Settings, budget: Budget, widest: Callable[[], int]) -> None:
        self._max_bytes = settings.max_body_bytes
        self._max_rows = settings.max_rows
        self._budget = budget
        self._widest = widest

    def read_json(self, request: Request) -> bytes:
        """The bytes of a body that is declared to be JSON.

        Raises:
            UnsupportedMediaTypeError: it is declared to be something else.
            ProblemError: as `read`.
        """
        declared = request.headers.get("content-type", "")
        if declared != "application/json":
            media_type, options = parse_options_header(declared)
            if media_type.lower() != "application/json":
                raise UnsupportedMediaTypeError(
                    f"the Content-Type is {media_type or 'missing'!r}, not 'application/json'"
                )
            charset = options.get("charset", "utf-8")
            if charset.lower() not in ("utf-8", "utf8"):
                raise UnsupportedMediaTypeError(f"the charset is {charset!r}, but JSON is UTF-8")
        body = self.read(request)
        self.require_few_values(body)
        return body

    def read(self, request: Request) -> bytes:
        """The bytes of a body of any type, unpacked; call `release` when they are no longer needed.

        Raises:
            UnsupportedCodingError: its coding is neither gzip nor deflate.
            TooLargeError: it is longer than the service's limit when unpacked.
            NoMemoryError: other requests hold the memory that it needs.
            NotJsonError: it does not have the declared coding.
        """
        declared = request.headers.get("content-encoding")
        if declared is None:
            return request.body
        codings = [part.strip().lower() for part in declared.split(",")]
        codings = [coding for coding in codings if coding not in ("", "identity")]
        if not codings:
            return request.body
        if len(codings) > 1 or codings[0] not in _WINDOWS:
            raise UnsupportedCodingError(
                f"the Content-Encoding is {', '.join(codings)!r}, not 'gzip' or 'deflate'"
            )
        return self._unpack(request, codings[0])

    @contextmanager
    def opened(self, request: Request) -> Iterator[bytes]:
        """The bytes of a body for as long as they are needed.

        Raises:
            ProblemError: as `read` and `require_few_values`.
        """
        try:
            body = self.read(request)
            self.require_few_values(body)
            with collection.paused() if len(body) > LARGE_BYTES else nullcontext():
                yield body
        finally:
            self.release(request)

    def release(self, request: Request) -> None:
        """Stop counting the unpacked body of a request."""
        self._budget.give_back(request.unpacked_bytes)
        request.unpacked_bytes = 0

    def require_few_values(self, body: bytes) -> None:
        """Refuse JSON that has more values than the allowed rows can have, before it is parsed.

        Parsed, a number of two bytes takes 32 bytes, and an empty list of three bytes takes 64.

        Raises:
            InvalidRequestError: it has more.
            NotReadyError: nothing is served, so the number of values per row is unknown.
        """
        if len(body) <= LARGE_BYTES:
            return
        values = self._max_rows * (self._widest() + 2) + _OTHER_VALUES
        lists = 2 * self._max_rows + _OTHER_VALUES
        if body.count(b",") > values or body.count(b"[") + body.count(b"{") > lists:
            raise InvalidRequestError(
                f"the body has more values than {self._max_rows} rows, the most allowed, can have"
            )

    def _unpack(self, request: Request, coding: str) -> bytes:
        """Unpack piece by piece, so that a decompression bomb is stopped at the limit."""
        pieces, packed, total = [], b"", 0
        rest = memoryview(request.body)
        unpacker = zlib.decompressobj(_WINDOWS[coding])
        try:
            while True:
                if not packed:
                    # Small pieces: zlib copies the input that is left at the end of each member.
                    packed, rest = bytes(rest[:_PACKED_BYTES]), rest[_PACKED_BYTES:]
                piece = unpacker.decompress(packed, _PIECE_BYTES)
                total += len(piece)
                if total > self._max_bytes:
                    raise TooLargeError(
                        f"the body is longer than {self._max_bytes} bytes when unpacked"
                    )
                if not self._budget.take(len(piece)):
                    raise NoMemoryError()
                request.unpacked_bytes += len(piece)
                pieces.append(piece)
                packed = unpacker.unconsumed_tail
                if unpacker.eof and (unpacker.unused_data or rest) and coding != "deflate":
                    # Another member of the same gzip file (RFC 1952, section 2.2).
                    packed = unpacker.unused_data
                    unpacker = zlib.decompressobj(_WINDOWS[coding])
                elif unpacker.eof or not (packed or rest or piece):
                    break
        except zlib.error as error:
            raise NotJsonError(f"the body is not {coding}: {error}") from error
        if not unpacker.eof or unpacker.unused_data or rest:
            raise NotJsonError(f"the body is not one whole {coding} stream")
        return b"".join(pieces)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Parse and validate JSON, except for duplicate keys: see `require_unique_keys`.

    Raises:
        NotJsonError: it is not JSON.
        InvalidRequestError: a part of it is missing, unknown or of the wrong type.
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            # msgspec stops at a wrong type; what follows may not be JSON at all.
            _parse(body)
            raise InvalidRequestError(describe(str(error))) from error
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJsonError(f"the body is not JSON: {error}") from error


def _parse(body: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], Any] = dict) -> None:
    """Check a whole body strictly by RFC 8259, with numbers of any size; slow."""

    def refuse(constant: str) -> None:
        raise NotJsonError(f"the body is not JSON: it has no {constant}")

    try:
        json.loads(
            body.decode(), parse_constant=refuse, parse_int=float, object_pairs_hook=pairs_hook
        )
    except ValueError as error:
        raise NotJsonError(f"the body is not JSON: {error}") from error


def require_unique_keys(body: bytes, strings: Iterable[int]) -> None:
    """Refuse an object with a duplicate key: the decoder silently keeps the last.

    Args:
        body: JSON.
        strings: how many the decoder may have kept, keys and values, quickest to count first. If
            the body has two quotation marks for each, no key was lost; else each object is checked.

    Raises:
        InvalidRequestError: a key is a duplicate; names it.
    """
    quotation_marks = body.count(b'"')
    for count in strings:
        if quotation_marks == 2 * count:
            break
    else:
        _parse(body, _refuse_double)


def _refuse_double(pairs: list[tuple[str, Any]]) -> None:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise InvalidRequestError(f"the key {key!r} occurs {count} times in one object")


def describe(message: str) -> str:
    """A message of msgspec, place first: "observations[0][2]: expected `float`, got `str`"."""
    found = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message, re.DOTALL)
    if found is None:
        return message
    what, where = found.groups()
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what
