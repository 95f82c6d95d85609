"""Answers as JSON."""

import orjson
from flask import Response


def encode(content: object) -> bytes:
    """Encode an answer; NumPy arrays become lists, float32 in its shortest form."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(content: object) -> Response:
    """Answer with JSON."""
    return Response(encode(content), content_type="application/json")
