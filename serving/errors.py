"""One error hierarchy, and its JSON shapes: problem details (RFC 9457) and other protocols' own."""

from collections.abc import Callable
from http import HTTPStatus

import orjson
from flask import Blueprint, Flask, Response, current_app, g
from werkzeug.exceptions import HTTPException


class ProblemError(Exception):
    """An answer other than the one that was asked for."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    retry_after_seconds: int | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotJsonError(ProblemError):
    """The body cannot be parsed."""

    status = HTTPStatus.BAD_REQUEST


class UnauthorizedError(ProblemError):
    """No valid API key came with the request."""

    status = HTTPStatus.UNAUTHORIZED


class ForbiddenError(ProblemError):
    """Nobody may do that with this service."""

    status = HTTPStatus.FORBIDDEN


class NotFoundError(ProblemError):
    """There is nothing of that name."""

    status = HTTPStatus.NOT_FOUND


class UnknownLabelError(NotFoundError):
    """No version has that label."""


class ConflictError(ProblemError):
    """What is asked for does not go with how the service was set up."""

    status = HTTPStatus.CONFLICT


class TooLargeError(ProblemError):
    """The body is longer than is allowed."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMediaTypeError(ProblemError):
    """The body is not declared to be of a kind that is understood here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class InvalidRequestError(ProblemError):
    """The body is JSON and means nothing here."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotReadyError(ProblemError):
    """No policy is loaded; one may be soon."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 1


def problem_body(status: int, detail: str) -> bytes:
    """Encode a problem."""
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
    )


def problem_response(status: int, detail: str) -> Response:
    """Answer with a problem."""
    body = problem_body(status, detail)
    return Response(body, status, content_type="application/problem+json")


def error_object_response(status: int, detail: str) -> Response:
    """Answer with an error as TensorFlow Serving and the Open Inference Protocol write it.

    Neither knows a status for a body that can be parsed and means nothing but 400.
    """
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    # What it quotes of a request may have half a surrogate pair, which UTF-8 cannot hold.
    body = orjson.dumps({"error": detail.encode(errors="replace").decode()})
    return Response(body, status, content_type="application/json")


def register_error_handlers(
    routes: Flask | Blueprint, respond: Callable[[int, str], Response] = problem_response
) -> None:
    """Answer every error, the framework's own included, in one shape."""

    @routes.errorhandler(ProblemError)
    def handle_problem(problem: ProblemError) -> Response:
        response = respond(problem.status, problem.detail)
        if problem.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(problem.retry_after_seconds)
        if isinstance(problem, UnauthorizedError):
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @routes.errorhandler(HTTPException)
    def handle_http_exception(error: HTTPException) -> Response:
        response = respond(
            error.code or HTTPStatus.INTERNAL_SERVER_ERROR, error.description or error.name
        )
        # Werkzeug knows headers that belong to the status: Allow with 405, for one.
        for name, value in error.get_headers():
            if name != "Content-Type":
                response.headers[name] = value
        return response

    @routes.errorhandler(Exception)
    def handle_unexpected(error: Exception) -> Response:
        current_app.logger.exception("request %s failed", g.get("request_id"), exc_info=error)
        return respond(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says why")
