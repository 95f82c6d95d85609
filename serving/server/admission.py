"""Checks requests by their heads, and makes the answers to those that are refused."""

from serving.api.exchange import HEALTH, Exchange, request_id
from serving.api.problems import from_error
from serving.errors import ProblemError, TooLargeError
from serving.metrics import Metrics
from serving.server.parser import Head
from serving.server.responses import header_lines, serialize

NO_HEALTH_BODY = "health takes no body"


class Admission:
    """Checks what the worker receives, and answers what never reaches the application."""

    def __init__(self, exchange: Exchange, metrics: Metrics) -> None:
        self._exchange, self._metrics = exchange, metrics
        self._fields = header_lines(exchange.headers)

    def admit(self, head: Head) -> None:
        """Accept a request whose body has not arrived.

        Raises:
            InsufficientRightError: its key may not do that.
            TooLargeError: its route reads no body.
            UnauthorizedError: it needs a key, and has none or an invalid one.
        """
        if head.path in HEALTH:
            raise TooLargeError(NO_HEALTH_BODY)
        self._exchange.admit(head.path, head.headers.get("authorization"))

    def refusal(self, error: ProblemError, head: Head | None, peer: str) -> bytes:
        """The answer to a refused request from `peer`: counted, and logged if it has a head."""
        if head is None:
            return self.problem(error)
        own_id = request_id(head.headers.get("x-request-id"))
        finished = self._exchange.finished(head.method, head.path, head.headers, peer, own_id)
        self._exchange.finish("none", error.status, [finished], 0.0)
        answer = finished.add_trace(from_error(head.path, error))
        fields, is_head = self.fields(own_id), head.method == "HEAD"
        return serialize(answer, keep=False, fields=fields, is_head=is_head)

    def problem(
        self, error: ProblemError, head: Head | None = None, *, keep: bool = False
    ) -> bytes:
        """The answer to a request that is counted but not logged.

        Either nothing is known about the request, or too many are rejected to log each.
        """
        self._metrics.answered_by_worker(error.status)
        path, is_head = ("", False) if head is None else (head.path, head.method == "HEAD")
        answer = from_error(path, error)
        return serialize(answer, keep=keep, fields=self._fields, is_head=is_head)

    def fields(self, own_id: str) -> str:
        """The header lines that every answer has, with the id of its request."""
        return f"X-Request-ID: {own_id}\r\n{self._fields}"
