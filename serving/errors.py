"""One error hierarchy; `serving.api.problems` writes it as HTTP."""

from http import HTTPStatus

Headers = tuple[tuple[str, str], ...]


def first_line(error: Exception) -> str:
    """The first line of an error's message: TensorFlow's have many."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class ProblemError(Exception):
    """An error that is sent to the client, with its HTTP status and headers."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: Headers = ()
    detail: str = ""  # unless one is given

    def __init__(self, detail: str | None = None) -> None:
        if detail is not None:
            self.detail = detail
        super().__init__(self.detail)


class UnexpectedError(ProblemError):
    """The service itself failed."""

    detail = "the service failed; its log says why"


class NotJsonError(ProblemError):
    """The body cannot be parsed."""

    status = HTTPStatus.BAD_REQUEST


class UnauthorizedError(ProblemError):
    """No valid API key came with the request; the headers are RFC 6750's."""

    status = HTTPStatus.UNAUTHORIZED


class MissingKeyError(UnauthorizedError):
    """No API key came with the request."""

    headers = (("WWW-Authenticate", "Bearer"),)


class InvalidKeyError(UnauthorizedError):
    """This service does not know the API key."""

    headers = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)


class InsufficientRightError(ProblemError):
    """The API key may not do that."""

    status = HTTPStatus.FORBIDDEN
    headers = (("WWW-Authenticate", 'Bearer error="insufficient_scope", scope="operate"'),)


class ForbiddenError(ProblemError):
    """Nobody may do that with this service."""

    status = HTTPStatus.FORBIDDEN


class NotFoundError(ProblemError):
    """There is nothing of that name."""

    status = HTTPStatus.NOT_FOUND


class ConflictError(ProblemError):
    """The request conflicts with how the service is set up."""

    status = HTTPStatus.CONFLICT


class TooLargeError(ProblemError):
    """The body is longer than is allowed."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMediaTypeError(ProblemError):
    """The body is declared to be of a type or coding that the service does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UnsupportedCodingError(UnsupportedMediaTypeError):
    """The content coding is not one that the service reads (RFC 9110, section 15.5.16)."""

    headers = (("Accept-Encoding", "gzip, deflate"),)


class InvalidRequestError(ProblemError):
    """The body is JSON but not a valid request."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotReadyError(ProblemError):
    """No policy is loaded; one may be soon."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: Headers = (("Retry-After", "1"),)


class NoDefaultPolicyError(NotReadyError):
    """The default model has no policy: `GET /health/ready` says so too.

    Envoy sends no more requests to a service that answers with this header until a health check
    succeeds. Without it, Envoy would send every retry here: it prefers the service with the fewest
    requests in flight, which is one that refuses at once.
    https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/health_checking
    """

    headers: Headers = (
        *NotReadyError.headers,
        ("X-Envoy-Immediate-Health-Check-Fail", "true"),
    )


class TooBusyError(NotReadyError):
    """No thread is left for the request now."""

    detail = "too busy"


class NoMemoryError(TooBusyError):
    """Other requests hold the memory that this one needs."""

    detail = "too many large requests at once"


class WorkerStuckError(TooBusyError):
    """Another request holds up the worker, which is being replaced."""

    detail = "this worker is stuck"


class PolicyTimeoutError(NotReadyError):
    """The request takes longer than is allowed."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    detail = "the policy took too long"
