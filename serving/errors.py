"""One error hierarchy and one JSON shape: problem details, RFC 9457."""

from http import HTTPStatus

import orjson
from flask import Flask, Response, current_app
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


class NotFoundError(ProblemError):
    """There is nothing of that name."""

    status = HTTPStatus.NOT_FOUND


class UnknownLabelError(NotFoundError):
    """No version has that label."""


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


def register_error_handlers(app: Flask) -> None:
    """Answer every error, the framework's own included, in the one shape."""

    @app.errorhandler(ProblemError)
    def handle_problem(problem: ProblemError) -> Response:
        response = problem_response(problem.status, problem.detail)
        if problem.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(problem.retry_after_seconds)
        if isinstance(problem, UnauthorizedError):
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @app.errorhandler(HTTPException)
    def handle_http_exception(error: HTTPException) -> Response:
        response = problem_response(
            error.code or HTTPStatus.INTERNAL_SERVER_ERROR, error.description or error.name
        )
        # Werkzeug knows headers that belong to the status: Allow with 405, for one.
        for name, value in error.get_headers():
            if name != "Content-Type":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def handle_unexpected(error: Exception) -> Response:
        current_app.logger.exception("unexpected error", exc_info=error)
        return problem_response(
            HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says why"
        )
