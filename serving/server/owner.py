"""What a connection needs of the worker that owns it."""

from typing import NamedTuple, Protocol

from serving.api.budget import Budget
from serving.server.clock import Clock
from serving.server.parser import Head, RefusedError


class Limits(NamedTuple):
    """What a worker's connections share; times are in seconds.

    Attributes:
        budget: counts the bytes that connections hold.
        clock: the worker's.
        max_body_bytes: of a request.
        client_timeout: for a client to send a request, and to take its answer.
        keep_alive: for the next request to begin.
    """

    budget: Budget
    clock: Clock
    max_body_bytes: int
    client_timeout: float
    keep_alive: float


class Owner(Protocol):
    """What a connection needs of the worker that owns it."""

    def check_head(self, head: Head) -> bytes | None:
        """Whether to refuse a request before its body has arrived: with this answer."""

    def refusal(self, error: RefusedError, head: Head | None) -> bytes:
        """The answer to a request that breaks the rules or a limit, which is counted."""
