"""gunicorn's worker for this service: one loop that receives, decides and answers.

It waits for requests without a thread for each, so slow clients cost nothing but memory. All
decisions that are ready are made together in the loop, large requests are given to threads, and
what is too much is rejected at once.
"""

import contextlib
import logging
import os
import resource
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.workers.base import Worker as BaseWorker

from serving.api.decisions import Call, with_headers
from serving.api.exchange import HEADERS, HEALTH, Finished, request_id
from serving.api.messages import Answer, Request
from serving.api.problems import from_error, problem
from serving.errors import ProblemError, TooLargeError
from serving.server.clock import Clock
from serving.server.connection import LINGER_SECONDS, Connection, Limits, Received
from serving.server.draining import accept_all_packets, stop_new_connections
from serving.server.gunicorn_adapter import WORKER_BOOT_ERROR
from serving.server.parser import Head, RefusedError
from serving.server.responses import call_wsgi, serialize
from serving.server.watchdog import Watchdog

logger = logging.getLogger(__name__)

# A request of that many bytes, 1,500 rows of four numbers, takes about two milliseconds.
INLINE_BYTES = 128 * 1024
KEEP_ALIVE_SECONDS = 75.0
MAX_CONNECTIONS = 900  # others wait in the kernel's queue
# Open files that are no connections: of TensorFlow, the logs, and a version that is being loaded.
_OTHER_FILES = 40
_PAUSE_SECONDS = 0.1


class Worker(BaseWorker):
    """See above. All but `_answer_large` runs in the main thread.

    Attributes:
        slot: number of the worker, which a successor takes over.
        iterations: of the loop.
    """

    alive: bool
    slot: int

    def init_process(self) -> None:
        """Make what must be there before the first request; gunicorn calls it after the fork."""
        self.iterations = 0
        self._threads = ThreadPoolExecutor(self.app.settings.threads, "request")
        all_started = threading.Barrier(self.app.settings.threads + 1)
        try:
            for _ in range(self.app.settings.threads):
                self._threads.submit(all_started.wait)
            all_started.wait()
        except RuntimeError as error:
            logger.error(
                "the %d threads of --threads cannot be started: %s; is there a limit of processes?",
                self.app.settings.threads,
                error,
            )
            os._exit(WORKER_BOOT_ERROR)
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then answer what is still to be answered."""
        settings = self.app.settings
        self._api = self.app.api
        self._metrics = self.app.metrics
        self._balancer = self.app.balancer
        self._clock = Clock()
        self._limits = Limits(
            self._api.budget,
            self._clock,
            settings.max_body_bytes,
            settings.client_timeout,
            KEEP_ALIVE_SECONDS,
        )
        self._max_connections = _max_connections()
        self._connections: dict[Connection, int] = {}  # and what the poller waits for
        self._ready: dict[Connection, None] = {}  # ordered, and each once
        self._in_threads = 0
        self._finished: deque[Callable[[], None]] = deque()
        self._accept_from = 0.0
        self._accepts = False
        self._last_housekeeping = self._last_complaint = -60.0
        self._watchdog = Watchdog[Connection](
            self, settings.request_timeout, self.cfg.graceful_timeout
        )
        self._poller = selectors.DefaultSelector()
        self._poller.register(self.PIPE[0], selectors.EVENT_READ, self._on_wake_up)
        self._watchdog.start()
        self._report_connections()
        while self.alive and self.ppid == os.getppid():
            self._run_once(1.0)
        self.alive = False
        self._drain()

    def _drain(self) -> None:
        stop = time.monotonic()
        self._balancer.withdraw(self.slot)
        # Clients that do not know yet that it stops are answered as well, and told to close.
        while time.monotonic() < stop + LINGER_SECONDS:
            self._run_once(0.1)
        self._stop_accepting()
        for conn in list(self._connections):
            conn.last_chance()
            self._after(conn)
        while self._connections and time.monotonic() < stop + self.cfg.graceful_timeout:
            self._run_once(0.1)
        self._threads.shutdown(wait=False)

    def _run_once(self, timeout: float) -> None:
        """Wait for something to do, and do all there is."""
        pause = self._accept_from - time.monotonic()
        self._set_accepting(pause <= 0)
        if self._ready:
            timeout = 0
        elif pause > 0:
            timeout = min(timeout, pause)
        self._poll(timeout)
        if self._ready:
            # Yield the CPU: clients on this core may send now and join this batch.
            os.sched_yield()
            self._poll(0)
        self._clock.tick()
        self._dispatch()
        if self._api.budget.is_exceeded():
            self._relieve()
        self.iterations += 1
        if self._clock.now - self._last_housekeeping >= 1.0:
            self._last_housekeeping = self._clock.now
            self.notify()
            for conn in [conn for conn in self._connections if conn.is_overdue()]:
                conn.expire()
                self._after(conn)

    def _poll(self, timeout: float) -> None:
        for key, _ in self._poller.select(timeout):
            key.data()

    def _on_wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)
        while self._finished:
            self._finished.popleft()()

    # Connections

    def _set_accepting(self, accepts: bool) -> None:
        if accepts is not self._accepts:
            self._accepts = accepts
            for listener in self.sockets:
                if accepts:
                    accept = partial(self._accept, listener)
                    self._poller.register(listener, selectors.EVENT_READ, accept)
                else:
                    self._poller.unregister(listener)

    def _accept(self, listener: Any) -> None:
        """Accept one connection, if it is this worker's turn; the next iteration takes the next."""
        now = time.monotonic()
        if delay := self._balancer.accept_delay(len(self._connections), now):
            self._accept_from = now + delay
        elif len(self._connections) >= self._max_connections and not self._evict():
            self._accept_from = now + _PAUSE_SECONDS
        else:
            self._take_connection(listener)

    def _take_connection(self, listener: Any) -> bool:
        try:
            sock, remote = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            self._accept_from = time.monotonic() + _PAUSE_SECONDS
            self._evict()
            if self._clock.now - self._last_complaint >= 60.0:
                self._last_complaint = self._clock.now
                logger.error("a connection could not be accepted: %s", error)
            return False
        if not self.alive:
            accept_all_packets(sock)
        conn = Connection(sock, remote[:2], self, self._limits)
        callback = partial(self._on_event, conn)
        self._poller.register(sock, selectors.EVENT_READ, callback)
        self._connections[conn] = selectors.EVENT_READ
        self._report_connections()
        return True

    def _report_connections(self) -> None:
        if self.alive:
            self._balancer.report(self.slot, len(self._connections))

    def _stop_accepting(self) -> None:
        """Accept what the kernel has completed, and close the listening sockets."""
        for listener in self.sockets:
            stop_new_connections(listener, self.ppid)
        self._run_once(0.1)
        self._set_accepting(False)
        for listener in self.sockets:
            while self._take_connection(listener):
                pass
            listener.close()
        self.sockets: list[socket.socket] = []

    def _on_event(self, conn: Connection) -> None:
        try:
            if conn.wants_write():
                conn.send()
            else:
                conn.receive()
        except Exception:  # it is this connection's, and ends no other
            logger.exception("a connection failed")
            conn.close()
        self._after(conn)

    def _after(self, conn: Connection) -> None:
        """Do what follows from a change of a connection."""
        if conn.is_ready():
            self._ready[conn] = None
            return
        read = selectors.EVENT_READ if conn.wants_read() else 0
        wanted = read | (selectors.EVENT_WRITE if conn.wants_write() else 0)
        if conn.is_closed():
            if self._connections.pop(conn, 0):
                self._poller.unregister(conn.socket)
            self._report_connections()
        elif wanted != self._connections[conn]:
            self._set_events(conn, wanted)

    def _set_events(self, conn: Connection, wanted: int) -> None:
        before, self._connections[conn] = self._connections[conn], wanted
        if not wanted:
            self._poller.unregister(conn.socket)
        elif before:
            self._poller.modify(conn.socket, wanted, partial(self._on_event, conn))
        else:
            self._poller.register(conn.socket, wanted, partial(self._on_event, conn))

    def _evict(self) -> bool:
        """Close the connection that has waited longest without sending a request, if one has."""
        waiting = [(order, conn) for conn in self._connections if (order := conn.eviction_order())]
        if not waiting:
            return False
        _, oldest = min(waiting, key=lambda one: one[0])
        oldest.close()
        self._after(oldest)
        return True

    def _relieve(self) -> None:
        """End the connections that hold most, until all that is held is within the budget."""
        largest = sorted(self._connections, key=lambda conn: conn.held_bytes, reverse=True)
        for conn in largest:
            if not self._api.budget.is_exceeded():
                break
            if conn.gives_way():
                conn.give_way()
                self._after(conn)

    # Requests

    def check_head(self, head: Head) -> bytes | None:
        """Whether to refuse a request before its body has arrived: with this answer."""
        try:
            if head.path in HEALTH:
                raise TooLargeError("health takes no body")
            self._api.exchange.admit(head.path, head.headers.get("authorization"))
        except ProblemError as error:
            own_id = request_id(head.headers.get("x-request-id"))
            finished = Finished(head.method, head.path, "", own_id, error.status)
            self._api.exchange.finish("none", [finished], 0.0)
            answer = with_headers(from_error(head.path, error), own_id)
            return serialize(answer, keep=False)
        return None

    def refusal(self, error: RefusedError, head: Head | None) -> bytes:
        """The answer to a request that breaks the rules or a limit, which is counted."""
        return self._problem(error.status, error.detail, "" if head is None else head.path)

    def _problem(self, status: HTTPStatus, detail: str, path: str, *, keep: bool = False) -> bytes:
        """An answer of the worker itself."""
        self._metrics.answered_by_worker(status)
        is_busy = status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
        headers = (*HEADERS, ("Retry-After", "1")) if is_busy else HEADERS
        return serialize(problem(path, status, detail, headers), keep=keep)

    def _dispatch(self) -> None:
        """Answer all requests that are ready: health first, then all decisions together."""
        ready, self._ready = [conn for conn in self._ready if conn.is_ready()], {}
        if not ready:
            return
        health: list[tuple[Connection, Received]] = []
        others: list[tuple[Connection, Received]] = []
        decisions: list[tuple[Connection, Received]] = []
        calls: list[Call] = []
        for conn in ready:
            received = conn.take()
            head = received.head
            if head.route is None:
                head.route = self._api.decisions.match(head.method, head.path) or ()
            is_large = len(received.body) > INLINE_BYTES
            if is_large or (head.route and "content-encoding" in head.headers):
                self._hand_over(conn, received)
            elif head.route:
                self._watchdog.begin(conn)
                decisions.append((conn, received))
                calls.append(_call(conn, received))
            else:
                (health if head.path in HEALTH else others).append((conn, received))
        for conn, received in health:
            self._answer_by_wsgi(conn, received)
        if calls:
            answers = self._api.decisions.answer(calls)
            for (conn, received), answer in zip(decisions, answers, strict=True):
                self._send(conn, received.head, answer)
        for number, (conn, received) in enumerate(others):
            if number < self.app.settings.max_in_flight:
                self._answer_by_wsgi(conn, received)
            else:
                self._reject(conn, received.head)

    def _answer_by_wsgi(self, conn: Connection, received: Received) -> None:
        self._watchdog.begin(conn)
        self._send(conn, received.head, self._call_wsgi(conn, received))

    def _call_wsgi(self, conn: Connection, received: Received) -> Answer:
        return call_wsgi(self.wsgi, received, conn.remote, conn.socket.getsockname())

    def _hand_over(self, conn: Connection, received: Received) -> None:
        """Have a request answered in a thread."""
        if self._in_threads >= self.app.settings.max_in_flight:
            self._reject(conn, received.head)
            return
        self._in_threads += 1
        self._set_events(conn, 0)
        self._threads.submit(self._answer_large, conn, received)

    def _answer_large(self, conn: Connection, received: Received) -> None:
        self._watchdog.begin(conn)
        if received.head.route:
            (answer,) = self._api.decisions.answer([_call(conn, received)])
        else:
            answer = self._call_wsgi(conn, received)
        self._finished.append(partial(self._send_large, conn, received.head, answer))
        os.write(self.PIPE[1], b"1")

    def _send_large(self, conn: Connection, head: Head, answer: Answer) -> None:
        self._in_threads -= 1
        self._send(conn, head, answer)

    def _reject(self, conn: Connection, head: Head) -> None:
        self._metrics.shed.inc()
        keep = head.keep_alive and self.alive
        status = HTTPStatus.SERVICE_UNAVAILABLE
        conn.answer(self._problem(status, "too busy", head.path, keep=keep), keep=keep)
        self._after(conn)

    def _send(self, conn: Connection, head: Head, answer: Answer) -> None:
        self._watchdog.end(conn)
        keep = head.keep_alive and self.alive
        conn.answer(serialize(answer, keep=keep, is_head=head.method == "HEAD"), keep=keep)
        self._after(conn)

    # What the watchdog asks for, from its thread

    def stop(self, stuck: list[Connection]) -> None:
        """Answer the requests that are stuck, and end when the others have ended."""
        for conn in stuck:
            self._abandon(conn, HTTPStatus.GATEWAY_TIMEOUT, "the policy took too long")
        self.alive = False

    def abandon_all(self) -> None:
        """Answer every request that has begun to arrive: the process ends after it."""
        for conn in list(self._connections):
            self._abandon(conn, HTTPStatus.SERVICE_UNAVAILABLE, "this worker is stuck")

    def _abandon(self, conn: Connection, status: HTTPStatus, detail: str) -> None:
        with contextlib.suppress(OSError):
            conn.abandon(partial(self._problem, status, detail, ""))


def _call(conn: Connection, received: Received) -> Call:
    head = received.head
    route, parts = head.route
    request = Request(head.method, head.path, head.headers, received.body, conn.remote[0])
    return Call(route, parts, request)


def _max_connections() -> int:
    """As many as the limit of open files has room for."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_CONNECTIONS, open_files - _OTHER_FILES))
