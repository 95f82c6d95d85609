"""Triton's extension of the Open Inference Protocol: raw tensors behind the JSON of a body."""

import re
from collections.abc import Mapping, Sequence

from serving.api.messages import Answer
from serving.errors import InvalidRequestError

HEADER = "Inference-Header-Content-Length"


def split(body: bytes, headers: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """The JSON of a body, and what follows it, which is not copied.

    Raises:
        InvalidRequestError: the header that tells the length of the JSON is not such a length.
    """
    length = headers.get(HEADER.lower())
    if length is None:
        return body, memoryview(b"")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > len(body):
        raise InvalidRequestError(f"{HEADER}: {length!r} is not a length in a body of {len(body)}")
    return body[: int(length)], memoryview(body)[int(length) :]


def join(head: bytes, tensors: Sequence[bytes | memoryview]) -> Answer:
    """Answer with JSON and the raw tensors that it describes, joined once."""
    headers = ((HEADER, str(len(head))),)
    return Answer(200, b"".join([head, *tensors]), "application/octet-stream", headers)
