"""Answers as JSON."""

from typing import Any

import orjson
from flask import Response


def json_response(content: dict[str, Any]) -> Response:
    """Encode an answer; NumPy arrays become lists, float32 in its shortest form."""
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json"
    )
