"""Triton's extension of the Open Inference Protocol: raw tensors behind the JSON of a body."""

import re
from collections.abc import Sequence

from flask import Request, Response

from serving.api.body import body_bytes
from serving.errors import InvalidRequestError

HEADER = "Inference-Header-Content-Length"


def read(request: Request) -> tuple[bytes, memoryview]:
    """The JSON of a body, and what follows it, which is not copied.

    Raises:
        InvalidRequestError: the header that tells the length of the JSON is not such a length.
        UnsupportedMediaTypeError, TooLargeError, NotJsonError: as `body_bytes`.
    """
    body = body_bytes(request)
    length = request.headers.get(HEADER)
    if length is None:
        return body, memoryview(b"")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > len(body):
        raise InvalidRequestError(f"{HEADER}: {length!r} is not a length in a body of {len(body)}")
    return body[: int(length)], memoryview(body)[int(length) :]


def write(head: bytes, tensors: Sequence[bytes | memoryview]) -> Response:
    """Answer with JSON and the raw tensors that it tells of, joined once."""
    response = Response(b"".join([head, *tensors]), content_type="application/octet-stream")
    response.headers[HEADER] = str(len(head))
    return response
