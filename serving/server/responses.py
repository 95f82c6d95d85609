"""Writes answers as bytes, and passes requests other than decisions to the WSGI application."""

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from sys import stderr
from typing import Any
from wsgiref.types import WSGIApplication

from werkzeug.wrappers import Response

from serving.api.messages import Answer
from serving.errors import Headers
from serving.server.parser import Received

_WRITTEN = ("Content-Type", "Content-Length")  # by `serialize`
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


def header_lines(headers: Headers) -> str:
    """Headers as lines of a head."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


def serialize(answer: Answer, *, keep: bool, fields: str, is_head: bool = False) -> bytes:
    """A whole response.

    Args:
        answer: to be sent.
        fields: header lines besides those of the answer.
        keep: whether the connection is kept.
        is_head: whether the method is HEAD, to which no body is sent.
    """
    for name, value in answer.headers:
        fields += f"{name}: {value}\r\n"
    if answer.status not in _NO_BODY:
        fields += f"Content-Type: {answer.content_type}\r\n"
        if not is_head:
            fields += f"Content-Length: {len(answer.body)}\r\n"
    head = f"{_start(answer.status, keep, int(time.time()))}{fields}\r\n".encode("latin-1")
    return head if is_head else head + answer.body


@lru_cache(maxsize=32)
def _start(status: int, keep: bool, now: int) -> str:
    """What all responses of one status have in common within one second."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: gunicorn\r\n"
        f"Date: {formatdate(now, usegmt=True)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n"
    )


def call_wsgi(
    app: WSGIApplication, received: Received, remote: tuple[str, int], server: Sequence[Any]
) -> Answer:
    """Have the application answer a request."""
    response = Response.from_app(app, _environ(received, remote, server), buffered=True)
    # The answer to HEAD has no body, but the Content-Length of the answer to GET.
    written = ("Content-Type",) if received.head.method == "HEAD" else _WRITTEN
    headers = tuple(pair for pair in response.headers if pair[0] not in written)
    content_type = response.headers.get("Content-Type", "text/plain")
    return Answer(response.status_code, response.data, content_type, headers)


def _environ(received: Received, remote: tuple[str, int], server: Sequence[Any]) -> dict[str, Any]:
    """The WSGI environment (PEP 3333) of a request."""
    head = received.head
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path.encode().decode("latin-1"),
        "QUERY_STRING": head.query,
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": head.version,
        "REMOTE_ADDR": remote[0],
        "REMOTE_PORT": str(remote[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(received.body),
        "wsgi.errors": stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in head.headers.items():
        # A name with an underscore could pass for that of another header.
        if "_" not in name and name != "transfer-encoding":
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ.pop("HTTP_CONTENT_LENGTH", None)
    environ["CONTENT_LENGTH"] = str(len(received.body))
    return environ
