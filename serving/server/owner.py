"""What a connection needs of the worker that owns it."""

from typing import NamedTuple, Protocol

from serving.api.budget import Budget
from serving.errors import ProblemError
from serving.server.clock import Clock
from serving.server.parser import Head


class Limits(NamedTuple):
    """What a worker's connections share; times are in seconds."""

    budget: Budget  # counts the bytes that connections hold
    clock: Clock
    max_body_bytes: int
    client_timeout: float  # to send a request, and again to take its answer
    keep_alive: float  # until the next request begins


class Owner(Protocol):
    """What a connection needs of the worker that owns it."""

    def admit(self, head: Head) -> None:
        """Let a request in whose body has not arrived, or raise a `ProblemError`."""

    def refusal(self, error: ProblemError, head: Head | None) -> bytes:
        """The answer to a request that is not whole, which is counted."""
