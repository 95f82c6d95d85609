"""The connections of a worker: accepting, polling and evicting them."""

import logging
import math
import os
import resource
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from serving.errors import NoMemoryError, ProblemError
from serving.server.balancing import ConnectionBalancer
from serving.server.connection import Connection, Limits, Owner
from serving.server.draining import accept_all_packets, is_open, stop_new_connections
from serving.server.parser import RefusedError

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 900  # others wait in the kernel's queue
# Open files that are not connections: of TensorFlow, the logs, and a version that is being loaded.
_OTHER_FILES = 40
_PAUSE_SECONDS = 0.1
_COMPLAINT_SECONDS = 60.0
_BUSY_POLL_SECONDS = 0.0002

yield_cpu = os.sched_yield if hasattr(os, "sched_yield") else partial(time.sleep, 0)


class ConnectionPool:
    """Accepts connections from the socket that all workers share, and finds out which are ready.

    Attributes:
        ready: connections with a whole request, in order, each once.
    """

    def __init__(
        self,
        listener: socket.socket,
        balancer: ConnectionBalancer,
        slot: int,
        owner: Owner,
        limits: Limits,
    ) -> None:
        self.ready: dict[Connection, None] = {}
        self._listener = listener
        self._balancer = balancer
        self._slot = slot
        self._owner = owner
        self._limits = limits
        self._is_draining = False
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_connections = max(1, min(MAX_CONNECTIONS, open_files - _OTHER_FILES))
        self._connections: dict[Connection, int] = {}  # with the events that the poller waits for
        self._accepts = False
        self._accept_from = 0.0
        self._last_complaint = -_COMPLAINT_SECONDS
        self._poller = selectors.DefaultSelector()
        self._report()

    def __len__(self) -> int:
        return len(self._connections)

    def all(self) -> list[Connection]:
        """All connections now."""
        return list(self._connections)

    def on_readable(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back when another descriptor can be read."""
        self._poller.register(descriptor, selectors.EVENT_READ, callback)

    def poll(self, timeout: float) -> None:
        """Wait for events, `timeout` seconds at most, and handle them."""
        pause = self._accept_from - time.monotonic()
        self._set_accepting(pause <= 0)
        if pause > 0:
            timeout = min(timeout, pause)
        events = self._poller.select(timeout)
        self._limits.clock.tick()  # before the deadlines that the events set
        for key, _ in events:
            key.data()

    def busy_poll(self) -> None:
        """Poll for the next request of the only client: sleeping and waking up takes longer."""
        end = time.perf_counter() + _BUSY_POLL_SECONDS
        while len(self._connections) == 1 and not self.ready and time.perf_counter() < end:
            yield_cpu()
            self.poll(0)

    def update(self, conn: Connection) -> None:
        """Adapt to the new state of a connection: ready, closed, or waiting for other events."""
        events = conn.events()
        if events and events == self._connections.get(conn):
            return
        if conn.is_ready():
            self.ready[conn] = None
        elif conn.is_closed():
            if self._connections.pop(conn, 0):
                self._poller.unregister(conn.socket)
            self._report()
        else:
            self._wait_for(conn, events)

    def ignore(self, conn: Connection) -> None:
        """Wait for nothing from a connection until its next `update`."""
        self._wait_for(conn, 0)

    def expire(self) -> None:
        """Give up waiting for clients that take too long."""
        late = RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        for conn in self.all():
            if conn.is_overdue():
                self._give_up(conn, late)

    def relieve(self) -> None:
        """Drop the connections that hold the most memory, until the rest is within the budget."""
        for conn in sorted(self._connections, key=lambda conn: conn.held_bytes, reverse=True):
            if not self._limits.budget.is_exceeded():
                break
            # Skip those that hold no memory, and those that are being handled (no events).
            if conn.held_bytes and conn.events():
                self._give_up(conn, NoMemoryError())

    def _give_up(self, conn: Connection, error: ProblemError) -> None:
        conn.give_up(error)
        self.update(conn)

    def begin_to_drain(self) -> None:
        """Leave new connections to other workers, if there are any."""
        self._is_draining = True
        self._balancer.withdraw(self._slot)

    def is_last(self, parent: int) -> bool:
        """Whether the master has closed the listening socket, so no new worker will accept."""
        return not is_open(self._listener, parent)

    def stop_accepting(self, parent: int) -> None:
        """Accept what the kernel has completed, and close the listening socket.

        New connections have two seconds to send a request; idle ones are closed. `parent` is the
        master.
        """
        stop_new_connections(self._listener, parent)
        self.poll(0.1)
        self._set_accepting(False)
        while self._accept():
            pass
        self._listener.close()
        self._accept_from = math.inf
        for conn in self.all():
            conn.last_chance()
            self.update(conn)

    def _set_accepting(self, accepts: bool) -> None:
        if accepts is not self._accepts:
            self._accepts = accepts
            if accepts:
                self._poller.register(self._listener, selectors.EVENT_READ, self._on_new_connection)
            else:
                self._poller.unregister(self._listener)

    def _on_new_connection(self) -> None:
        """Accept one connection, if it is this worker's turn; the next iteration takes the next."""
        now = time.monotonic()
        if delay := self._balancer.accept_delay(len(self._connections), now):
            self._accept_from = now + delay
        elif len(self._connections) >= self._max_connections and not self._evict():
            self._accept_from = now + _PAUSE_SECONDS
        else:
            self._accept()

    def _accept(self) -> bool:
        """Accept a connection; False if none waits, or none could be accepted."""
        try:
            sock, remote = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            self._evict()
            self._accept_from = time.monotonic() + _PAUSE_SECONDS
            if self._limits.clock.now - self._last_complaint >= _COMPLAINT_SECONDS:
                self._last_complaint = self._limits.clock.now
                logger.error("a connection could not be accepted: %s", error)
            return False
        if self._is_draining:
            accept_all_packets(sock)
        conn = Connection(sock, remote[:2], self._owner, self._limits)
        self._connections[conn] = 0
        self._wait_for(conn, selectors.EVENT_READ)
        self._report()
        return True

    def _report(self) -> None:
        if not self._is_draining:
            self._balancer.report(self._slot, len(self._connections))

    def _wait_for(self, conn: Connection, wanted: int) -> None:
        before, self._connections[conn] = self._connections[conn], wanted
        if not wanted:
            if before:  # it is not registered if a pipelined request came without an event
                self._poller.unregister(conn.socket)
        elif before:
            self._poller.modify(conn.socket, wanted, partial(self._on_event, conn))
        else:
            self._poller.register(conn.socket, wanted, partial(self._on_event, conn))

    def _on_event(self, conn: Connection) -> None:
        try:
            if conn.events() == selectors.EVENT_WRITE:
                conn.send()
            else:
                conn.receive()
        except Exception:  # a bug ends only the connection that meets it
            logger.exception("a connection failed")
            conn.close()
        self.update(conn)

    def _evict(self) -> bool:
        """Close the first connection in `eviction_order`, once it has waited for a second.

        Until then none is closed, so that a burst of new connections does not evict one that was
        used.
        """
        waiting = {conn: order for conn in self._connections if (order := conn.eviction_order())}
        first = min(waiting, key=waiting.__getitem__, default=None)
        if first is None or self._limits.clock.now - waiting[first][-1] < 1.0:
            return False
        first.close()
        self.update(first)
        return True
