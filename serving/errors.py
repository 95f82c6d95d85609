"""One error hierarchy; `serving.api.problems` writes it as HTTP."""

from http import HTTPStatus


class ProblemError(Exception):
    """An answer other than the one that was asked for."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: tuple[tuple[str, str], ...] = ()

    def __init_subclass__(cls, status: int | None = None) -> None:
        cls.status = cls.status if status is None else status

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotJsonError(ProblemError, status=HTTPStatus.BAD_REQUEST):
    """The body cannot be parsed."""


class UnauthorizedError(ProblemError, status=HTTPStatus.UNAUTHORIZED):
    """No valid API key came with the request."""

    headers = (("WWW-Authenticate", "Bearer"),)


class ForbiddenError(ProblemError, status=HTTPStatus.FORBIDDEN):
    """Nobody may do that with this service."""


class NotFoundError(ProblemError, status=HTTPStatus.NOT_FOUND):
    """There is nothing of that name."""


class UnknownLabelError(NotFoundError):
    """No version has that label."""


class ConflictError(ProblemError, status=HTTPStatus.CONFLICT):
    """What is asked for does not go with how the service was set up."""


class TooLargeError(ProblemError, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
    """The body is longer than is allowed."""


class UnsupportedMediaTypeError(ProblemError, status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
    """The body is not declared to be of a kind that is understood here."""


class UnsupportedCodingError(UnsupportedMediaTypeError):
    """The content coding is not one that is understood here (RFC 9110, section 15.5.16)."""

    headers = (("Accept-Encoding", "gzip, deflate"),)


class InvalidRequestError(ProblemError, status=HTTPStatus.UNPROCESSABLE_ENTITY):
    """The body is JSON and means nothing here."""


class NotReadyError(ProblemError, status=HTTPStatus.SERVICE_UNAVAILABLE):
    """No policy is loaded; one may be soon."""

    headers = (("Retry-After", "1"),)


class TooBusyError(NotReadyError):
    """There is no memory or thread left for the request now."""


class StuckError(TooBusyError):
    """The request takes longer than is allowed."""

    status = HTTPStatus.GATEWAY_TIMEOUT
