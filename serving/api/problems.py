"""Errors as HTTP: problem details (RFC 9457), and other protocols' own shape below their paths."""

import re
from http import HTTPStatus

import orjson
from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from serving.api.messages import Answer, to_flask
from serving.errors import Headers, ProblemError, UnexpectedError

# TensorFlow Serving and the Open Inference Protocol write {"error": "..."}.
_ERROR_OBJECTS = re.compile(r"/[vV]1/.*|/v2(/.*)?", re.DOTALL)


def _problem(path: str, status: int, detail: str, headers: Headers) -> Answer:
    """Answer with an error in the shape that its path requires."""
    # What it quotes from a request may have a lone surrogate, which UTF-8 cannot encode.
    detail = detail.encode(errors="replace").decode()
    if _ERROR_OBJECTS.fullmatch(path):
        status = protocol_status(status)
        return Answer(status, orjson.dumps({"error": detail}), "application/json", headers)
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Answer(status, orjson.dumps(content), "application/problem+json", headers)


def protocol_status(status: int) -> int:
    """The status of TensorFlow Serving and the Open Inference Protocol in place of our own.

    Both answer 400 to a body that can be parsed but is not valid.
    """
    is_invalid = status == HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.BAD_REQUEST if is_invalid else status


def from_error(path: str, error: ProblemError) -> Answer:
    """Answer with a `ProblemError`."""
    return _problem(path, error.status, error.detail, error.headers)


def register_error_handlers(app: Flask) -> None:
    """Answer every error, the framework's own included, in the shape of its path."""

    @app.errorhandler(ProblemError)
    def handle_problem(error: ProblemError) -> Response:
        return to_flask(from_error(request.path, error))

    @app.errorhandler(HTTPException)
    def handle_http_exception(error: HTTPException) -> Response:
        # Werkzeug has the headers that belong to a status, such as Allow with 405.
        headers = tuple(pair for pair in error.get_headers() if pair[0] != "Content-Type")
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        return to_flask(_problem(request.path, status, error.description or error.name, headers))

    @app.errorhandler(Exception)
    def handle_unexpected(error: Exception) -> Response:
        current_app.logger.exception("request %s failed", g.get("request_id"), exc_info=error)
        return to_flask(from_error(request.path, UnexpectedError()))
