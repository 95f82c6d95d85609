"""gunicorn's worker for this service: one loop that reads, decides and answers.

gunicorn's own thread worker gives every connection a thread while it sends its request, so
eight slow clients stop a worker, and hands every request from thread to thread. This one
collects requests without a thread, answers small ones in the loop itself, gives large ones to
threads, and refuses at once what is too much. Parsing, WSGI and process care stay gunicorn's.
"""

import contextlib
import logging
import math
import os
import selectors
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from io import BytesIO
from itertools import zip_longest
from operator import attrgetter
from typing import Any

from gunicorn.http.body import ChunkedReader
from gunicorn.workers import base
from gunicorn.workers.gthread import ThreadWorker

from serving.server.connection import NOTHING, Connection, problem_response, write_problem
from serving.server.draining import turn_away
from serving.server.watchdog import watch

logger = logging.getLogger(__name__)

# A request of that many bytes, 1,500 rows of four numbers, takes about two milliseconds.
INLINE_BYTES = 128 * 1024
HEALTH = (b"GET /health", b"GET /v2/health")
RECEIVE_BYTES = 64 * 1024
MAX_RECEIVE_BYTES = 1024 * 1024
TOO_LARGE = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is longer than allowed",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "the head is longer than allowed",
}
# A stopping worker answers what comes in for that long: its clients do not know it yet.
LINGER_SECONDS = 2.0

by_deadline = attrgetter("deadline")


class Worker(ThreadWorker):
    """See above. All but `_handle` runs in the main thread."""

    def init_process(self) -> None:
        """Begin; gunicorn calls it after the fork."""
        base.util.write_error = write_problem  # gunicorn has no setting for its error page
        self.settings = self.app.settings
        self.ready: dict[Connection, None] = {}  # ordered, and each once
        self.connections: set[Connection] = set()
        self.begun: dict[Connection, float] = {}  # infinity while it waits for a thread
        self.received_bytes = 0
        self.unsent_bytes = 0
        self.turns = 0
        self.looked = 0.0
        self.accept_again = 0.0
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then answer what is still to be answered."""
        threading.Thread(target=watch, args=[self], name="watchdog", daemon=True).start()
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self._tell_share()
        while self.alive and self.is_parent_alive():
            self._turn(1.0)
        stop = time.monotonic()
        self.app.shares.forget(self.place)
        # Who connects meanwhile is answered as well, and told to close.
        while time.monotonic() < stop + LINGER_SECONDS:
            self._turn(0.1)
        self._stop_accepting()
        self._turn(0.1)
        for conn in self.connections.copy():
            busy = conn in self.begun or conn.received or conn.unsent or conn.closing
            if not busy and conn.was_answered:
                self._drop(conn)
            elif not busy:  # it is new, and its request may be on its way
                conn.deadline = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < stop + self.cfg.graceful_timeout:
            if all(conn.abandoned for conn in self.connections):
                break
            self._turn(0.1)
        self.tpool.shutdown(wait=False)

    def _turn(self, timeout: float) -> None:
        """Wait for something, and do all there is to do."""
        pause = self.accept_again - time.monotonic()
        if len(self.connections) >= self.worker_connections:
            self._make_room()
        room = len(self.connections) < self.worker_connections
        self.set_accept_enabled(room and pause <= 0)
        if self.ready:
            timeout = 0
        elif pause > 0:
            timeout = min(timeout, pause)
        self._read(timeout)
        if self.ready:
            # Who waits for this core may be about to ask, and is then decided about in one call.
            os.sched_yield()
            self._read(0)
        self._dispatch()
        self.turns += 1
        now = time.monotonic()
        if now - self.looked >= 1.0:
            self.looked = now
            self.notify()
            self._close_overdue(now)

    def _read(self, timeout: float) -> None:
        for key, _ in self.poller.select(timeout):
            key.data(key.fileobj)

    def accept(self, listener: Any) -> bool:
        """Take one connection, if it is this worker's turn; the next turn takes the next."""
        now = time.monotonic()
        if pause := self.app.shares.pause(len(self.connections), now):
            self.accept_again = now + pause
            return False
        return self._take(listener)

    def _take(self, listener: Any) -> bool:
        try:
            sock, client = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            logger.error("a connection could not be taken: %s", error)
            return False
        server = listener.getsockname()
        conn = Connection(self.cfg, sock, client, server, self.settings.max_body_bytes)
        conn.deadline = time.monotonic() + self.settings.client_timeout
        self.connections.add(conn)
        self._listen(conn)
        self._tell_share()
        return True

    def _tell_share(self) -> None:
        if self.alive:
            self.app.shares.tell(self.place, len(self.connections))

    def _stop_accepting(self) -> None:
        """Take who waits to be taken, and close the door."""
        for listener in self.sockets:
            turn_away(listener, self.ppid)
        self._turn(0.1)
        self.set_accept_enabled(False)
        for listener in self.sockets:
            while self._take(listener):
                pass
            listener.close()
        self.sockets: list[socket.socket] = []

    def _listen(self, conn: Connection) -> None:
        self.poller.register(conn.raw, selectors.EVENT_READ, partial(self._receive, conn))

    def _receive(self, conn: Connection, _sock: object) -> None:
        size = min(max(RECEIVE_BYTES, conn.missing()), MAX_RECEIVE_BYTES)
        try:
            data = conn.raw.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if conn not in self.ready:  # else what came before the end is answered first
                self._drop(conn)
            return
        if conn.closing:
            return
        if not conn.received:
            conn.deadline = time.monotonic() + self.settings.client_timeout
        conn.received += data
        self.received_bytes += len(data)
        self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """See what is to be done about what was received."""
        if conn.is_whole():
            self.ready[conn] = None
        elif conn.too_large is not None:
            self._refuse(conn, conn.too_large, TOO_LARGE[conn.too_large])
        elif self.received_bytes > 8 * self.settings.max_body_bytes:
            self._refuse(conn, HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at once")
        elif conn.expects_continue:
            conn.expects_continue = False
            with contextlib.suppress(OSError):  # the next look at the socket tells
                conn.raw.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _dispatch(self) -> None:
        """Answer what is ready, as far as allowed, and refuse the rest first."""
        ready = [conn for conn in self.ready if conn in self.connections]
        self.ready = {}
        room = max(0, self.settings.max_in_flight - len(self.begun))
        if len(ready) > room:
            # A service that is busy is alive: its health is always told.
            checks = [conn for conn in ready if conn.received.startswith(HEALTH)]
            others = [conn for conn in ready if conn not in checks]
            for conn in others[room:]:
                self._shed(conn)
            ready = checks + others[:room]
        small = []
        for conn in ready:
            request = conn.take()
            self.received_bytes -= len(request)
            if len(request) <= INLINE_BYTES:
                self.begun[conn] = time.monotonic()
                small.append((conn, request))
            else:
                self._hand_over(conn, request)
        # A stopping worker has to say so in its answers, which the fast lane does not.
        answers = self.app.fast_lane.answer([request for _, request in small]) if self.alive else []
        for (conn, request), answer in zip_longest(small, answers):
            if answer is not None:
                self._finish(conn, answer, keep=True)
            else:
                conn.parse(request)
                keep = bool(self.handle(conn))
                self._finish(conn, conn.sock.take(), keep)

    def _shed(self, conn: Connection) -> None:
        self.received_bytes -= len(conn.take())
        self.app.metrics.shed.inc()
        self.app.metrics.answered_by_worker(HTTPStatus.SERVICE_UNAVAILABLE)
        headers = "Retry-After: 1\r\n" + ("" if self.alive else "Connection: close\r\n")
        busy = problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "too busy", headers)
        self._send(conn, busy, keep=self.alive and not conn.is_last)

    def _hand_over(self, conn: Connection, request: bytes) -> None:
        """Have a request handled in a thread."""
        conn.parse(request)
        self.begun[conn] = math.inf
        self.poller.unregister(conn.raw)
        future: Future[bool] = self.tpool.submit(self._handle, conn)
        future.add_done_callback(
            lambda done: self.method_queue.defer(self._finish_handled, conn, done)
        )

    def _handle(self, conn: Connection) -> bool:
        self.begun[conn] = time.monotonic()
        return bool(self.handle(conn))

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Answer a request whose head is parsed; called by gunicorn's `handle`."""
        req._expected_100_continue = False  # it has been met
        if conn.is_last:
            req.force_close()
        # gunicorn answers 400 to bad chunks that are found here, the application 500.
        is_chunked = isinstance(req.body.reader, ChunkedReader)
        rest = req.body.read() if is_chunked else conn.parser.unreader.take_buffered()
        req.body = BytesIO(rest)
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, _conn: Connection, keepalive: bool) -> bool:
        return keepalive  # nothing is left to be drained: a parser is given one request

    def _finish_handled(self, conn: Connection, done: "Future[bool]") -> None:
        self._listen(conn)
        keep = done.exception() is None and done.result()
        self._finish(conn, conn.sock.take(), keep)

    def _finish(self, conn: Connection, answer: bytes, keep: bool) -> None:
        if not conn.abandoned:
            del self.begun[conn]
            self._send(conn, answer, keep)

    def _send(self, conn: Connection, data: bytes, keep: bool) -> None:
        """Send an answer, as far as its client takes it now."""
        conn.was_answered = True
        try:
            sent = conn.raw.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(conn)
            return
        if sent == len(data):
            self._end_answer(conn, keep)
            return
        conn.unsent, conn.keep = memoryview(data)[sent:], keep
        conn.deadline = time.monotonic() + self.settings.client_timeout
        self.poller.modify(conn.raw, selectors.EVENT_WRITE, partial(self._send_on, conn))
        self.unsent_bytes += len(conn.unsent)
        if self.unsent_bytes > 8 * self.settings.max_body_bytes:
            # One gives way, and it is the slowest.
            self._drop(min((c for c in self.connections if c.unsent), key=by_deadline))

    def _send_on(self, conn: Connection, _sock: object) -> None:
        """Send more of an answer, now that its client has taken some."""
        try:
            sent = conn.raw.send(conn.unsent)
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)
            return
        conn.unsent = conn.unsent[sent:]
        self.unsent_bytes -= sent
        if not conn.unsent:
            conn.unsent = NOTHING  # a memoryview of nothing keeps what it is a view of
            self.poller.modify(conn.raw, selectors.EVENT_READ, partial(self._receive, conn))
            self._end_answer(conn, conn.keep)

    def _end_answer(self, conn: Connection, keep: bool) -> None:
        """Wait for the next request, or close."""
        if not keep:
            self._close_gently(conn)
            return
        patience = self.settings.client_timeout if conn.received else self.cfg.keepalive
        conn.deadline = time.monotonic() + patience
        if conn.received:
            self._advance(conn)

    def _refuse(self, conn: Connection, status: int, detail: str) -> None:
        """Answer a request that is not whole yet, and close."""
        self.app.metrics.answered_by_worker(status)
        self._send(conn, problem_response(status, detail, "Connection: close\r\n"), keep=False)

    def _close_gently(self, conn: Connection) -> None:
        """End our side, and read to the end of theirs.

        Bytes that are left unread would make the kernel take back the answer.
        """
        self.received_bytes -= len(conn.received)
        conn.received.clear()
        conn.closing = True
        conn.deadline = time.monotonic() + LINGER_SECONDS
        try:
            conn.raw.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        if conn not in self.connections:
            return
        self.connections.discard(conn)
        self._tell_share()
        self.received_bytes -= len(conn.received)
        self.unsent_bytes -= len(conn.unsent)
        self.poller.unregister(conn.raw)
        conn.raw.close()

    def _make_room(self) -> None:
        """Show out who came first of those who had a second and have not asked for anything."""
        latest = time.monotonic() + self.settings.client_timeout - 1.0
        silent = [c for c in self.connections if not c.was_answered and c.deadline < latest]
        if conn := min((c for c in silent if c not in self.begun), key=by_deadline, default=None):
            self._drop(conn)

    def _close_overdue(self, now: float) -> None:
        for conn in [c for c in self.connections if c.deadline < now and c not in self.begun]:
            if conn.received and not conn.unsent:
                self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
            else:
                self._drop(conn)
