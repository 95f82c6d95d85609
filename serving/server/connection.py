"""One client connection: a state machine over a socket that never blocks."""

import selectors
import socket
from collections.abc import Callable
from enum import IntEnum, auto
from http import HTTPStatus

from serving.server.owner import Limits, Owner
from serving.server.parser import Head, Received, RefusedError, RequestParser

_RECEIVE_BYTES = 64 * 1024
_MAX_RECEIVE_BYTES = 1024 * 1024
# A longer head is parsed again each time: what an idle connection holds is small.
_MAX_KEPT_HEAD_BYTES = 4 * 1024
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


class Connection:
    """Receives requests and sends answers; the worker decides when and what.

    Attributes:
        socket: of the client.
        remote: the client's address and port.
        held_bytes: of memory, counted in the budget.
        since: on the worker's clock, when it began to wait for its client.
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
        self._parser: RequestParser | None = None
        self._request: Received | None = None
        self._rest = b""  # received after the request that is being answered
        self._unsent = _NOTHING
        self._keep = True
        self._was_answered = False
        # The bytes of the last good head and what they mean, while the client sends nothing else.
        self._kept: tuple[bytes, Head] | None = None
        self._wait(State.IDLE, limits.client_timeout)

    def is_ready(self) -> bool:
        """Whether a whole request waits to be taken."""
        return self._state is State.READY

    def is_overdue(self) -> bool:
        """Whether the client took too long."""
        return self.events() != 0 and self._deadline < self._limits.clock.now

    def eviction_order(self) -> tuple[bool, bool, float] | None:
        """Idle connections first, and of them those without any request; the oldest first.

        None for those that waited for less than a second, or do not wait for a request.
        """
        if self.events() != _READ or self._limits.clock.now - self.since < 1.0:
            return None
        return self._state is State.RECEIVING, self._was_answered, self.since

    def is_closed(self) -> bool:
        """Whether the socket is closed."""
        return self._state is State.CLOSED

    def events(self) -> int:
        """What to wait for: `selectors.EVENT_READ`, `selectors.EVENT_WRITE` or nothing."""
        return _EVENTS[self._state]

    def gives_way(self) -> bool:
        """Whether it can be ended to free what it holds."""
        return self._state in (State.IDLE, State.RECEIVING, State.SENDING)

    def receive(self) -> None:
        """Read what the client has sent."""
        if self.events() != _READ:
            return
        missing = 0 if self._parser is None else self._parser.missing_bytes()
        try:
            data = self.socket.recv(min(max(_RECEIVE_BYTES, missing), _MAX_RECEIVE_BYTES))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self._state is not State.LINGERING:
            self._parse(self._rest + data if self._rest else data, may_keep=not self._rest)

    def take(self) -> Received:
        """The request that is ready, to be handled now."""
        request = self._request
        assert request is not None
        assert self._state is State.READY
        self._request = None
        self._state = State.HANDLING
        return request

    def answer(self, data: bytes, *, keep: bool) -> None:
        """Send an answer, as far as its client takes it now."""
        if self._state is State.CLOSED or self._state is State.LINGERING:
            return  # the watchdog has answered
        self._keep, self._unsent = keep, memoryview(data)
        self.send()
        if self._unsent and self._state is not State.SENDING:
            self._wait(State.SENDING, self._limits.client_timeout)
            self._hold(len(data) + len(self._rest))

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
        self._unsent = _NOTHING  # a memoryview of nothing keeps what it is a view of
        self._was_answered = True
        if not self._keep:
            self._linger()
            return
        self._wait(State.IDLE, self._limits.keep_alive)
        self._hold(0)
        if self._rest:
            self._parse(self._rest, may_keep=False)

    def last_chance(self) -> None:
        """Give a new connection two seconds to send its request; close one that was answered."""
        if self._state is State.IDLE and self._was_answered:
            self.close()
        elif self._state is State.IDLE:
            self._wait(State.IDLE, LINGER_SECONDS)

    def expire(self) -> None:
        """Give up waiting: a request that began to arrive is refused, all else is closed."""
        if self._state is State.RECEIVING:
            late = RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
            self._refuse(late)
        else:
            self.close()

    def give_way(self) -> None:
        """Free what it holds, because others need it."""
        if self._state is State.RECEIVING:
            detail = "too many large requests at once"
            self._refuse(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, detail))
        else:
            self.close()

    def abandon(self, answer: Callable[[], bytes]) -> None:
        """Answer for a request that nobody else will answer; the watchdog's thread calls it.

        Raises:
            OSError: the client has left.
        """
        if self._state in (State.RECEIVING, State.READY, State.HANDLING) or (
            self._state is State.IDLE and self.socket.recv(1)
        ):
            self._state = State.LINGERING
            self.socket.send(answer())
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket and free what the connection holds."""
        self._state = State.CLOSED
        self._forget()
        self.socket.close()

    def _wait(self, state: State, seconds: float) -> None:
        """Enter a state that ends with something that the client does, or with that time."""
        self._state = state
        self.since = self._limits.clock.now
        self._deadline = self.since + seconds

    def _parse(self, data: bytes, *, may_keep: bool) -> None:
        self._rest = b""
        if self._parser is None:
            if self._kept is not None:
                raw, known = self._kept
                if data.startswith(raw) and len(data) == len(raw) + (known.body_bytes or 0):
                    self._become_ready(known, data[len(raw) :])
                    return
                self._kept = None
            # Empty lines before a request line are ignored (RFC 9112, section 2.2).
            while data.startswith(b"\r\n"):
                data = data[2:]
            if data in (b"", b"\r"):
                self._rest = data
                return
            self._parser = RequestParser(self._limits.max_body_bytes)
            self._wait(State.RECEIVING, self._limits.client_timeout)
        else:
            may_keep = False
        parser = self._parser
        had_head = parser.head is not None
        try:
            is_complete = parser.feed(data)
        except RefusedError as error:
            self._refuse(error)
            return
        head = parser.head
        if is_complete:
            assert head is not None
            self._rest = parser.rest
            if may_keep and not self._rest and head.body_bytes is not None and head.keep_alive:
                raw = data[: len(data) - head.body_bytes]
                if len(raw) <= _MAX_KEPT_HEAD_BYTES:
                    self._kept = raw, head
            body = parser.body()
            self._drop_parser()
            self._become_ready(head, body)
            return
        self._hold(parser.held_bytes())
        if head is not None and not had_head:
            refusal = self._owner.check_head(head)
            if refusal is not None:
                self._end_with(refusal)
            elif head.expects_continue:
                try:
                    self.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                except OSError:
                    self.close()

    def _become_ready(self, head: Head, body: bytes) -> None:
        self._state = State.READY
        self._request = Received(head, body)
        self._hold(len(body) + len(self._rest))

    def _refuse(self, error: RefusedError) -> None:
        head = None if self._parser is None else self._parser.head
        self._end_with(self._owner.refusal(error, head))

    def _end_with(self, answer: bytes) -> None:
        """Answer a request that is not whole, and end the connection."""
        self._forget()
        self.answer(answer, keep=False)

    def _linger(self) -> None:
        self._forget()
        self._wait(State.LINGERING, LINGER_SECONDS)
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def _forget(self) -> None:
        self._drop_parser()
        self._request = self._kept = None
        self._rest, self._unsent = b"", _NOTHING
        self._hold(0)

    def _drop_parser(self) -> None:
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    def _hold(self, size: int) -> None:
        self._limits.budget.held += size - self.held_bytes
        self.held_bytes = size
