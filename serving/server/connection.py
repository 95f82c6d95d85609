"""One client connection: a state machine over a socket that never blocks."""

import contextlib
import selectors
import socket
from collections.abc import Callable
from enum import IntEnum, auto
from typing import NamedTuple, Protocol

from serving.api.budget import Budget
from serving.errors import ProblemError
from serving.server.clock import Clock
from serving.server.parser import Head, Received, RequestParser

_RECEIVE_BYTES = 64 * 1024
LINGER_SECONDS = 2.0
_NOTHING = memoryview(b"")


class State(IntEnum):
    """What a connection is doing.

    | from      | to                                                                            |
    |-----------|-------------------------------------------------------------------------------|
    | IDLE      | RECEIVING: some bytes came; READY: a whole request; CLOSED: idle for too long |
    | RECEIVING | READY: the request is whole; SENDING: it is refused; CLOSED: the client left  |
    | READY     | HANDLING: the worker took the request                                         |
    | HANDLING  | SENDING: there is an answer; LINGERING: the watchdog answered                 |
    | SENDING   | IDLE, RECEIVING or READY: all is sent, by what followed the request;          |
    |           | LINGERING: all is sent and the connection ends; CLOSED: the client is slow    |
    | LINGERING | CLOSED: the client closed its side, or took too long to                       |

    LINGERING is a lingering close (nginx's term): our side is closed, and input is discarded,
    because unread bytes make the kernel send RST, which can drop the answer. Any state becomes
    CLOSED when the socket fails.
    """

    IDLE = 0
    RECEIVING = auto()
    READY = auto()
    HANDLING = auto()
    SENDING = auto()
    LINGERING = auto()
    CLOSED = auto()


_READ = selectors.EVENT_READ
_EVENTS = (_READ, _READ, 0, 0, selectors.EVENT_WRITE, _READ, 0)  # of each state


class Limits(NamedTuple):
    """What a worker's connections share; times are in seconds."""

    budget: Budget  # counts the bytes that connections hold
    clock: Clock
    max_body_bytes: int
    client_timeout: float  # to send a request, and again to take its answer
    keep_alive: float  # until the next request begins
    root_path: str = ""  # removed from paths that begin with it


class Owner(Protocol):
    """What a connection needs from the worker that owns it."""

    def admit(self, head: Head) -> None:
        """Accept a request whose body has not arrived, or raise a `ProblemError`."""

    def refusal(self, error: ProblemError, head: Head | None, peer: str) -> bytes:
        """The answer to a refused request from `peer`, which is counted."""


class Connection:
    """Receives requests and sends answers; the worker decides when and what.

    Attributes:
        socket: of the client.
        remote: the client's address and port.
        held_bytes: bytes of memory, counted in the budget.
    """

    def __init__(
        self, sock: socket.socket, remote: tuple[str, int], owner: Owner, limits: Limits
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.remote = remote
        self.held_bytes = 0
        self._state = State.IDLE
        self._owner = owner
        self._limits = limits
        self._parser = RequestParser(limits.max_body_bytes, limits.root_path)
        self._request: Received | None = None
        self._head: Head | None = None  # of the request that is whole and has no answer yet
        self._unsent = _NOTHING
        self._keep = True
        self._was_answered = False
        self._enter(State.IDLE, limits.client_timeout)

    def is_ready(self) -> bool:
        """Whether a whole request waits to be taken."""
        return self._state is State.READY

    def is_overdue(self) -> bool:
        """Whether the client took too long."""
        return self.events() != 0 and self._deadline < self._limits.clock.now

    def eviction_order(self) -> tuple[bool, bool, float] | None:
        """The key to sort by: idle first, then those without any request yet, then the oldest.

        Its last number is when the connection began to wait. None if it waits for no request.
        """
        if self._state not in (State.IDLE, State.RECEIVING):
            return None
        return self._state is State.RECEIVING, self._was_answered, self._since

    def is_closed(self) -> bool:
        """Whether the socket is closed."""
        return self._state is State.CLOSED

    def events(self) -> int:
        """What to wait for: `selectors.EVENT_READ`, `selectors.EVENT_WRITE` or nothing."""
        return _EVENTS[self._state]

    def receive(self) -> None:
        """Read what the client has sent."""
        if self.events() != _READ:
            return
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self._state is not State.LINGERING:
            self._parse(data)

    def take(self) -> Received:
        """The request that is ready, to be handled now."""
        request = self._request
        assert request is not None
        assert self._state is State.READY
        self._request = None
        self._state = State.HANDLING
        return request

    def answer(self, data: bytes, *, keep: bool) -> None:
        """Send as much of an answer as the socket accepts now."""
        if self._state is State.CLOSED or self._state is State.LINGERING:
            return  # the watchdog has answered
        self._head = None
        self._keep, self._unsent = keep, memoryview(data)
        self.send()
        if self._unsent and self._state is not State.SENDING:
            self._enter(State.SENDING, self._limits.client_timeout)
            self._hold(len(data) + self._parser.held_bytes)

    def send(self) -> None:
        """Send more of an answer."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if sent < len(self._unsent):
            self._unsent = self._unsent[sent:]
            return
        self._unsent = _NOTHING  # an empty slice would keep the whole answer in memory
        self._was_answered = True
        if self._keep:
            self._enter(State.IDLE, self._limits.keep_alive)
            self._hold(0)
            if self._parser.rest:
                self._parse(b"")
            return
        self._forget()
        self._enter(State.LINGERING, LINGER_SECONDS)
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def last_chance(self) -> None:
        """Give a new connection two seconds to send its request; close one that was answered."""
        if self._state is State.IDLE and self._was_answered:
            self.close()
        elif self._state is State.IDLE:
            self._enter(State.IDLE, LINGER_SECONDS)

    def give_up(self, error: ProblemError) -> None:
        """Refuse the request that is arriving; if there is none, close the connection."""
        if self._state is State.RECEIVING:
            self._refuse(error)
        else:
            self.close()

    def abandon(self, answer: Callable[[Head | None], bytes]) -> None:
        """Answer for a request that nobody else will answer; the watchdog's thread calls it.

        Args:
            answer: makes the answer from the request's head, or None if that has not arrived.

        Raises:
            OSError: the client has left.
        """
        head = self._head or self._parser.head
        if self._state is State.IDLE and (data := self.socket.recv(_RECEIVE_BYTES)):
            with contextlib.suppress(ProblemError):
                request = self._parser.feed(data)
                head = request.head if request else self._parser.head
        elif self._state not in (State.RECEIVING, State.READY, State.HANDLING):
            return
        self._state = State.LINGERING
        self.socket.send(answer(head))
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket and free what the connection holds."""
        self._state = State.CLOSED
        self._forget()
        self.socket.close()

    def _enter(self, state: State, seconds: float) -> None:
        """Enter a state that ends when the client acts, or is overdue after so many seconds."""
        self._state = state
        self._since = self._limits.clock.now
        self._deadline = self._since + seconds

    def _parse(self, data: bytes) -> None:
        had_head = self._parser.head is not None
        try:
            self._request = self._parser.feed(data)
            head = self._parser.head
            if head is not None and not had_head:
                self._owner.admit(head)
        except ProblemError as error:
            self._refuse(error)
            return
        if self._request is not None:
            self._head = self._request.head
            self._state = State.READY
            self._hold(len(self._request.body) + self._parser.held_bytes)
            return
        if self._parser.has_begun and self._state is not State.RECEIVING:
            self._enter(State.RECEIVING, self._limits.client_timeout)
        self._hold(self._parser.held_bytes)
        if head is not None and not had_head and head.expects_continue:
            try:
                self.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:
                self.close()

    def _refuse(self, error: ProblemError) -> None:
        """Answer a request that is not whole, and end the connection."""
        answer = self._owner.refusal(error, self._parser.head, self.remote[0])
        self._forget()
        self.answer(answer, keep=False)

    def _forget(self) -> None:
        self._parser.clear()
        self._request, self._head, self._unsent = None, None, _NOTHING
        self._hold(0)

    def _hold(self, size: int) -> None:
        self._limits.budget.held += size - self.held_bytes
        self.held_bytes = size
