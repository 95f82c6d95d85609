"""gunicorn's worker for this service: one loop that receives, decides and answers.

It waits for requests without a thread for each, so slow clients cost only memory. All decisions
that are ready are made together in the loop, large requests go to threads, and requests beyond
the limit are rejected at once.
"""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from gunicorn.workers.base import Worker as BaseWorker

from serving.api.batch import in_batches
from serving.api.body import INLINE_BYTES
from serving.api.decisions import Call
from serving.api.exchange import HEALTH, request_id
from serving.api.messages import Answer, Request
from serving.errors import (
    PolicyTimeoutError,
    ProblemError,
    TooBusyError,
    TooLargeError,
    WorkerStuckError,
)
from serving.registry.trial import Trials
from serving.server.admission import NO_HEALTH_BODY, Admission
from serving.server.clock import Clock
from serving.server.connection import LINGER_SECONDS, Connection, Limits
from serving.server.gunicorn_adapter import WORKER_BOOT_ERROR
from serving.server.parser import Head, Received
from serving.server.pool import ConnectionPool, yield_cpu
from serving.server.responses import call_wsgi, serialize
from serving.server.watchdog import Watchdog

if TYPE_CHECKING:
    from serving.api.app import Api  # imports TensorFlow
    from serving.rpc.call import Call as RpcCall  # imports grpc
    from serving.rpc.server import RpcServer

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75.0

Waiting = tuple[Connection, Received]


class Worker(BaseWorker):
    """The loop. The main thread runs all but `_answer_large` and what the watchdog calls.

    Attributes:
        slot: number of the worker, which a successor takes over.
        iterations: of the loop.
    """

    alive: bool
    slot: int

    def init_process(self) -> None:
        """Make what the first request needs; gunicorn calls it after the fork."""
        self.iterations = 0
        count = self.app.settings.threads
        self._threads = ThreadPoolExecutor(count, "request")
        try:
            self.app.trials = Trials()  # it forks, so before there is a thread
            # Start all threads: each task waits for the others, so that no thread takes two.
            list(self._threads.map(threading.Barrier(count).wait, [None] * count))
        except (OSError, RuntimeError) as error:
            reason = f"{error}; is there a limit of processes?"
            logger.error("a process and %d --threads cannot be started: %s", count, reason)
            os._exit(WORKER_BOOT_ERROR)
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        settings = self.app.settings
        self._api: Api = self.app.api
        self._admission = Admission(self._api.exchange, self._api.metrics)
        self._clock = Clock()
        limits = Limits(
            self._api.budget,
            self._clock,
            settings.max_body_bytes,
            settings.client_timeout,
            KEEP_ALIVE_SECONDS,
            settings.root_path or "",
        )
        self._was_busy = False  # in the last iteration
        self._is_stuck = False
        self._in_threads = 0
        self._finished: deque[Callable[[], None]] = deque()
        self._last_housekeeping = -1.0
        self._watchdog = Watchdog["Connection | RpcCall"](
            self, settings.request_timeout, self.cfg.graceful_timeout
        )
        self._rpc = self._start_rpc()
        # Made last: the worker that this one replaces stops once this one reports connections.
        (listener,) = self.sockets
        self._pool = ConnectionPool(listener, self.app.balancer, self.slot, self._admission, limits)
        self._pool.on_readable(self.PIPE[0], self._on_wake_up)
        self._watchdog.start()
        while self.alive and self.ppid == os.getppid():
            self._run_once(1.0)
        self.alive = False
        self._drain()

    def _start_rpc(self) -> "RpcServer | None":
        """The gRPC server, if `--grpc-port` is set; grpcio must not be forked."""
        if self.app.rpc_address is None:
            return None
        from serving.rpc.server import RpcServer

        rpc = RpcServer(self._api, self.app.settings, self._watchdog)
        try:
            rpc.start(self.app.rpc_address)
        except RuntimeError as error:
            logger.error("gRPC cannot listen on %s: %s", self.app.rpc_address, error)
            os._exit(WORKER_BOOT_ERROR)
        logger.info("gRPC listens on %s", self.app.rpc_address)
        return rpc

    def _drain(self) -> None:
        stop = time.monotonic()
        self._pool.begin_to_drain()
        end = stop + self.cfg.graceful_timeout
        # Clients that do not yet know of the stop still get answers, with `Connection: close`.
        while time.monotonic() < stop + LINGER_SECONDS or self._is_awaited(end):
            # If the master continues, as after SIGHUP, only this worker ends, not the service.
            self._api.exchange.is_ending = self._pool.is_last(self.ppid)
            self._run_once(0.1)
        self._pool.stop_accepting(self.ppid)
        rpc = self._rpc
        if rpc is not None:
            rpc.stop(end - time.monotonic())
        while (len(self._pool) or (rpc and rpc.is_running())) and time.monotonic() < end:
            self._run_once(0.1)
        self._threads.shutdown(wait=False)

    def _is_awaited(self, end: float) -> bool:
        """Whether the service continues but no other worker accepts yet; False after `end`."""
        if self._is_stuck or self._api.exchange.is_ending or self.app.balancer.has_any():
            return False
        return time.monotonic() < end

    def _run_once(self, timeout: float) -> None:
        """Wait for something to do, and do all there is."""
        if self._was_busy:
            self._pool.busy_poll()
        self._pool.poll(0 if self._pool.ready else timeout)
        self._was_busy = bool(self._pool.ready)
        ready = 0
        # Yield the CPU: other clients on this core may send now and join this batch.
        while ready < len(self._pool.ready) < len(self._pool):
            ready = len(self._pool.ready)
            yield_cpu()
            self._pool.poll(0)
        self._dispatch()
        if self._api.budget.is_exceeded():
            self._pool.relieve()
        if self._api.shadows.is_due():
            self._pool.poll(0)
            self._api.shadows.run(is_busy=bool(self._pool.ready))
        self.iterations += 1
        if self._clock.now - self._last_housekeeping >= 1.0:
            self._last_housekeeping = self._clock.now
            self.notify()
            self._pool.expire()

    def _on_wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)
        while self._finished:
            self._in_threads -= 1
            self._finished.popleft()()

    def _dispatch(self) -> None:
        """Answer all requests that are ready: health first, then all decisions together."""
        ready, self._pool.ready = [conn for conn in self._pool.ready if conn.is_ready()], {}
        health: list[Waiting] = []
        decisions: list[Waiting] = []
        others: list[Waiting] = []
        for conn in ready:
            received = conn.take()
            head = received.head
            if head.route is None:
                head.route = self._api.decisions.match(head.method, head.path) or ()
            is_large = len(received.body) > INLINE_BYTES
            is_packed = received.body and "content-encoding" in head.headers
            # A POST that is not a decision may load a version, which takes seconds.
            if head.path in HEALTH:
                health.append((conn, received))
            elif is_large or is_packed or (head.method == "POST" and not head.route):
                self._hand_over(conn, received)
            else:
                (decisions if head.route else others).append((conn, received))
        for one in health:
            self._answer_health(*one)
        for batch in in_batches(decisions, lambda one: len(one[1].body)):
            self._answer(batch)
        max_others = self.app.settings.max_in_flight
        for one in others[:max_others]:
            self._answer([one])
        for conn, received in others[max_others:]:
            self._reject(conn, received.head)

    def _answer(self, requests: list[Waiting]) -> None:
        answers = self._answers(requests)
        for (conn, received), (answer, own_id) in zip(requests, answers, strict=True):
            self._send(conn, received.head, answer, own_id)

    def _answers(self, requests: list[Waiting]) -> Sequence[tuple[Answer, str | None]]:
        """Answers to decisions, or to one other request, with request ids; from any thread."""
        for conn, _ in requests:
            self._watchdog.begin(conn)
        if requests[0][1].head.route:
            calls = [_call(*request) for request in requests]
            return list(
                zip(self._api.decisions.answer(calls), [call.id for call in calls], strict=True)
            )
        ((conn, received),) = requests
        return [(call_wsgi(self.wsgi, received, conn.remote, conn.socket.getsockname()), None)]

    def _hand_over(self, conn: Connection, received: Received) -> None:
        """Have a request answered in a thread."""
        if self._in_threads >= self.app.settings.max_in_flight:
            self._reject(conn, received.head)
            return
        self._in_threads += 1
        self._pool.ignore(conn)
        self._threads.submit(self._answer_large, conn, received)

    def _answer_large(self, conn: Connection, received: Received) -> None:
        ((answer, own_id),) = self._answers([(conn, received)])
        self._finished.append(partial(self._send, conn, received.head, answer, own_id))
        os.write(self.PIPE[1], b"1")

    def _answer_health(self, conn: Connection, received: Received) -> None:
        head = received.head
        if received.body or head.body_bytes is None:
            # Its body arrived with its head, so `admit` was not called.
            refusal = self._admission.refusal(TooLargeError(NO_HEALTH_BODY), head, conn.remote[0])
            conn.answer(refusal, keep=False)
            self._pool.update(conn)
        else:
            self._answer([(conn, received)])

    def _reject(self, conn: Connection, head: Head) -> None:
        self._api.metrics.shed.inc()
        keep = head.keep_alive and self.alive
        conn.answer(self._admission.problem(TooBusyError(), head, keep=keep), keep=keep)
        self._pool.update(conn)

    def _send(self, conn: Connection, head: Head, answer: Answer, own_id: str | None) -> None:
        self._watchdog.end(conn)
        keep = head.keep_alive and self.alive
        is_head = head.method == "HEAD"
        fields = "" if own_id is None else self._admission.fields(own_id)
        conn.answer(serialize(answer, keep=keep, fields=fields, is_head=is_head), keep=keep)
        self._pool.update(conn)

    def stop(self, stuck: "list[Connection | RpcCall]") -> None:
        """Answer the stuck requests, and end once the others have ended."""
        for conn in stuck:
            self._abandon(conn, PolicyTimeoutError())
        self._is_stuck = True
        self.alive = False

    def abandon_all(self) -> None:
        """Answer every request that has arrived even in part: the process is about to end."""
        for conn in self._pool.all():
            self._abandon(conn, WorkerStuckError())

    def _abandon(self, conn: "Connection | RpcCall", error: ProblemError) -> None:
        with contextlib.suppress(OSError):
            conn.abandon(partial(self._admission.problem, error))


def _call(conn: Connection, received: Received) -> Call:
    head = received.head
    route, parts = head.route
    request = Request(head.method, head.path, head.headers, received.body, conn.remote[0])
    return Call(route, parts, request, request_id(head.headers.get("x-request-id")))
