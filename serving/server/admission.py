"""Who is let in, by a request's head, and the answers to those who get no further."""

from serving.api.exchange import HEALTH, Exchange, request_id
from serving.api.problems import from_error, problem
from serving.errors import ProblemError, TooLargeError
from serving.metrics import Metrics
from serving.server.parser import Head
from serving.server.responses import header_lines, serialize


class Admission:
    """Answers for the worker what never reaches the application."""

    def __init__(self, exchange: Exchange, metrics: Metrics) -> None:
        self._exchange, self._metrics = exchange, metrics
        self._fields = header_lines(exchange.headers)

    def admit(self, head: Head) -> None:
        """Let a request in whose body has not arrived.

        Raises:
            InsufficientRightError: its key may not do that.
            TooLargeError: nobody reads its body.
            UnauthorizedError: it needs a key and has none.
        """
        self.require_reader(head)
        self._exchange.admit(head.path, head.headers.get("authorization"))

    def require_reader(self, head: Head) -> None:
        """Raise `TooLargeError` if nobody reads the body of a request."""
        if head.path in HEALTH:
            raise TooLargeError("health takes no body")

    def refusal(self, error: ProblemError, head: Head | None, peer: str) -> bytes:
        """The answer to a request of that address: counted, and logged if it has a head."""
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
        """The answer to a request of which nothing is known, or one of too many to log each."""
        self._metrics.answered_by_worker(error.status)
        path, is_head = ("", False) if head is None else (head.path, head.method == "HEAD")
        answer = problem(path, error.status, error.detail, error.headers)
        return serialize(answer, keep=keep, fields=self._fields, is_head=is_head)

    def fields(self, own_id: str) -> str:
        """Lines of headers that every answer has, with the id of its request."""
        return f"X-Request-ID: {own_id}\r\n{self._fields}"
