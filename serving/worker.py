"""gunicorn's worker for this service: one loop that reads, decides and answers.

gunicorn's own thread worker gives every connection a thread while it sends its request, so
eight slow clients stop a worker, and hands every request from thread to thread. This one
collects requests without a thread, answers small ones in the loop itself, gives large ones to
threads, and refuses at once what is too much. Parsing, WSGI and process care stay gunicorn's.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from itertools import zip_longest
from typing import Any

from gunicorn.workers import base
from gunicorn.workers.gthread import ThreadWorker

from serving.connection import Connection, problem_response, write_problem

logger = logging.getLogger(__name__)

# A request of that many bytes takes well under a millisecond: less than to hand it over.
INLINE_BYTES = 16 * 1024
RECEIVE_BYTES = 64 * 1024
MAX_RECEIVE_BYTES = 1024 * 1024
# A stopping worker answers what comes in for that long: its clients do not know it yet.
LINGER_SECONDS = 2.0


class Worker(ThreadWorker):
    """See above. All but `_handle`, `_finish_sending` and `_watch` runs in the main thread."""

    def init_process(self) -> None:
        """Begin; gunicorn calls it after the fork."""
        base.util.write_error = write_problem  # gunicorn has no setting for its error page
        self.settings = self.app.settings
        self.ready: list[Connection] = []
        self.connections: set[Connection] = set()
        self.begun: dict[Connection, float] = {}
        self.received_bytes = 0
        self.turns = 0
        self.looked = 0.0
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then answer what is still to be answered."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        while self.alive and self.is_parent_alive():
            self.set_accept_enabled(self.nr_conns < self.worker_connections)
            self._turn(1.0)
        stop = time.monotonic()
        # Who connects meanwhile is answered as well, and told to close.
        while time.monotonic() < stop + LINGER_SECONDS:
            self._turn(0.1)
        self.set_accept_enabled(False)
        for listener in self.sockets:
            while self.accept(listener):
                pass
        self._turn(0.1)
        for conn in [c for c in self.connections if c not in self.begun and not c.received]:
            self._drop(conn)
        while time.monotonic() < stop + self.cfg.graceful_timeout:
            if all(conn.abandoned for conn in self.connections):
                break
            self._turn(0.1)
        self.tpool.shutdown(wait=False)

    def _turn(self, timeout: float) -> None:
        """Wait for something, and do all there is to do."""
        for key, _ in self.poller.select(0 if self.ready else timeout):
            key.data(key.fileobj)
        self._dispatch()
        self.turns += 1
        now = time.monotonic()
        if now - self.looked >= 1.0:
            self.looked = now
            self.notify()
            self._close_overdue(now)

    def accept(self, listener: Any) -> bool:
        """Take one connection; the next turn takes the next, if no other worker has."""
        try:
            sock, client = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            logger.error("a connection could not be taken: %s", error)
            return False
        server = listener.getsockname()
        conn = Connection(self.cfg, sock, client, server, self.settings.max_body_bytes)
        conn.deadline = time.monotonic() + self.cfg.keepalive
        self.nr_conns += 1
        self.connections.add(conn)
        self._listen(conn)
        return True

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
            self._drop(conn)
            return
        if conn.closing:
            return
        if not conn.received:
            conn.deadline = time.monotonic() + self.settings.client_timeout
        conn.received += data
        self.received_bytes += len(data)
        if conn.is_whole():
            self.ready.append(conn)
        elif self.received_bytes > 8 * self.settings.max_body_bytes:
            self._refuse(conn, HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at once")
        elif conn.expects_continue:
            conn.expects_continue = False
            conn.raw.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _dispatch(self) -> None:
        """Answer what is ready, as far as allowed, and refuse the rest first."""
        ready = [conn for conn in self.ready if conn in self.connections]
        self.ready = []
        room = max(0, self.settings.max_requests_in_hand - len(self.begun))
        if len(ready) > room:
            # A service that is busy is alive: its health is always told.
            checks = [conn for conn in ready if conn.received.startswith(b"GET /health")]
            others = [conn for conn in ready if conn not in checks]
            for conn in others[room:]:
                self._shed(conn)
            ready = checks + others[:room]
        small = []
        for conn in ready:
            inline = conn.is_sized
            request = conn.take()
            self.received_bytes -= len(request)
            if inline and len(request) <= INLINE_BYTES:
                small.append((conn, request))
            else:
                self._hand_over(conn, request)
        # A stopping worker has to say so in its answers, which the fast lane does not.
        answers = self.app.fast_lane.answer([request for _, request in small]) if self.alive else []
        for (conn, request), answer in zip_longest(small, answers):
            if answer is not None:
                self._send(conn, answer, keep=True)
            else:
                self._begin(conn, request)
                self._finish(conn, bool(self.handle(conn)))

    def _shed(self, conn: Connection) -> None:
        self.received_bytes -= len(conn.take())
        self.app.metrics.shed.inc()
        busy = problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "too busy", "Retry-After: 1\r\n")
        self._send(conn, busy, keep=True)

    def _begin(self, conn: Connection, request: bytes) -> None:
        """Give a request to gunicorn's parser."""
        self.begun[conn] = time.monotonic()
        conn.init()
        conn.parser.unreader.unread(request)

    def _hand_over(self, conn: Connection, request: bytes) -> None:
        """Have a request handled in a thread."""
        self._begin(conn, request)
        self.poller.unregister(conn.raw)
        conn.sock.settimeout(self.settings.client_timeout)
        future: Future[bool] = self.tpool.submit(self._handle, conn)
        future.add_done_callback(
            lambda done: self.method_queue.defer(self._finish_handled, conn, done)
        )

    def _handle(self, conn: Connection) -> bool:
        """Answer a request and send the answer, in a thread."""
        keep = bool(self.handle(conn))
        return self._finish_sending(conn, conn.sock.take(), keep)

    def _finish_sending(self, conn: Connection, data: bytes, keep: bool) -> bool:
        """Send to a client that may be slow, in a thread; whether to keep the connection."""
        if conn.abandoned:
            return False
        try:
            conn.raw.settimeout(self.settings.client_timeout)
            conn.raw.sendall(data)
            conn.raw.setblocking(False)
        except OSError:
            return False
        return keep

    def _finish_handled(self, conn: Connection, done: "Future[bool]") -> None:
        if conn.abandoned:
            return
        self._listen(conn)
        self._finish(conn, done.exception() is None and done.result())

    def _finish(self, conn: Connection, keep: bool) -> None:
        """Send what a request left to be sent, and wait for the next one."""
        self.begun.pop(conn, None)
        if keep and conn.parser is not None:
            rest = conn.parser.unreader.take_buffered()
            if rest:
                conn.received[:0] = rest
                self.received_bytes += len(rest)
        self._send(conn, conn.sock.take(), keep)

    def _send(self, conn: Connection, data: bytes, keep: bool) -> None:
        try:
            sent = conn.raw.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(conn)
            return
        if sent < len(data):
            self.begun[conn] = time.monotonic()
            self.poller.unregister(conn.raw)
            future = self.tpool.submit(self._finish_sending, conn, data[sent:], keep)
            future.add_done_callback(
                lambda done: self.method_queue.defer(self._finish_handled, conn, done)
            )
        elif not keep:
            self._close_gently(conn)
        else:
            conn.deadline = time.monotonic() + self.cfg.keepalive
            if conn.received and conn.is_whole():
                self.ready.append(conn)

    def _refuse(self, conn: Connection, status: int, detail: str) -> None:
        """Answer a request that is not whole yet, and close."""
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
        self.connections.discard(conn)
        self.nr_conns -= 1
        self.received_bytes -= len(conn.received)
        self.poller.unregister(conn.raw)
        conn.raw.close()

    def _close_overdue(self, now: float) -> None:
        for conn in [c for c in self.connections if c.deadline < now and c not in self.begun]:
            if conn.received:
                self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
            else:
                self._drop(conn)

    def _watch(self) -> None:
        """Answer for requests that are stuck, and have the worker replaced, in a thread."""
        while True:
            time.sleep(0.5)
            oldest = time.monotonic() - self.settings.request_timeout
            stuck = [conn for conn, begun in list(self.begun.items()) if begun < oldest]
            if not stuck:
                continue
            answer = problem_response(
                HTTPStatus.GATEWAY_TIMEOUT, "the policy took too long", "Connection: close\r\n"
            )
            for conn in stuck:
                conn.abandoned = True
                with contextlib.suppress(OSError):
                    conn.raw.send(answer)
            logger.error("%d stuck requests answered 504; this worker is replaced", len(stuck))
            self.alive = False
            # Others in hand have their time to end, if the loop still turns.
            turns = self.turns
            time.sleep(LINGER_SECONDS)
            if self.turns != turns:
                time.sleep(self.cfg.graceful_timeout)
            os._exit(1)
