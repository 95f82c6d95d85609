"""The body of a request: its bytes, and JSON of a given type."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from flask import Request

from serving.errors import (
    InvalidRequestError,
    NotJsonError,
    TooLargeError,
    UnsupportedMediaTypeError,
)

T = TypeVar("T")

GZIP = 16 + zlib.MAX_WBITS


def json_body(request: Request) -> bytes:
    """The bytes of a body that is declared to be JSON; gzip is unpacked.

    Raises:
        UnsupportedMediaTypeError: it is declared to be something else.
        TooLargeError: it is longer than the application's limit, packed or unpacked.
        NotJsonError: it is not gzip, though declared to be.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaTypeError(
            f"the Content-Type is {request.mimetype or 'missing'!r}, not 'application/json'"
        )
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaTypeError(f"the charset is {charset!r}, and JSON is UTF-8")
    return body_bytes(request)


def body_bytes(request: Request) -> bytes:
    """The bytes of a body of any type; gzip is unpacked.

    Raises:
        UnsupportedMediaTypeError, TooLargeError, NotJsonError: as `json_body`.
    """
    body = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise UnsupportedMediaTypeError(f"the Content-Encoding is {encoding!r}, not 'gzip'")
    limit = request.max_content_length
    assert limit is not None  # the settings give one
    unpacker = zlib.decompressobj(GZIP)
    try:
        # One byte more than allowed tells a bomb without unpacking it.
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise NotJsonError(f"the body is not gzip: {error}") from error
    if len(unpacked) > limit:
        raise TooLargeError(f"the body is longer than {limit} bytes when unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise NotJsonError("the body is not one whole gzip stream")
    return unpacked


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Parse and validate JSON, but for keys that come twice: see `require_unique_keys`.

    Raises:
        NotJsonError: it is not JSON.
        InvalidRequestError: a part of it is missing, unknown or of the wrong type.
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            # A wrong type may stand before what is not JSON at all.
            _parse(body)
            raise InvalidRequestError(describe(str(error))) from error
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJsonError(f"the body is not JSON: {error}") from error


def _parse(body: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], Any] = dict) -> None:
    """Read the whole body slowly, by the letter of the standard and whatever its numbers."""

    def refuse(constant: str) -> None:
        raise NotJsonError(f"the body is not JSON: it has no {constant}")

    try:
        json.loads(
            body.decode(), parse_constant=refuse, parse_int=float, object_pairs_hook=pairs_hook
        )
    except ValueError as error:
        raise NotJsonError(f"the body is not JSON: {error}") from error


def require_unique_keys(body: bytes, keys: Iterable[int]) -> None:
    """Refuse an object in which a key comes twice: the decoder keeps the last, silently.

    Args:
        body: JSON whose only strings are keys, so that it has two quotation marks for each.
        keys: how many the decoder may have kept, what is quickest to count first.

    Raises:
        InvalidRequestError: one comes twice; names it.
    """
    quotation_marks = body.count(b'"')
    if all(quotation_marks != 2 * count for count in keys):
        _parse(body, _refuse_double)
        raise InvalidRequestError("a key of the body comes twice")


def _refuse_double(pairs: list[tuple[str, Any]]) -> None:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise InvalidRequestError(f"the key {key!r} comes {count} times in one object")


def describe(message: str) -> str:
    """Put the place in front: "observations[0][2]: expected `float`, got `str`"."""
    found = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message, re.DOTALL)
    if found is None:
        return message
    what, where = found.groups()
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what
