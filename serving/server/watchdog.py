"""Looks after a worker some of whose requests never end."""

import contextlib
import logging
import os
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving.server.connection import Connection, problem_response

if TYPE_CHECKING:
    from serving.server.worker import Worker

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0


def watch(worker: "Worker") -> None:
    """Answer for requests that are stuck, and have the worker replaced; runs in a thread."""
    while True:
        time.sleep(0.5)
        oldest = time.monotonic() - worker.settings.request_timeout
        stuck = [conn for conn, begun in worker.begun.copy().items() if begun < oldest]
        if stuck:
            break
    for conn in stuck:
        _abandon(conn, HTTPStatus.GATEWAY_TIMEOUT, "the policy took too long")
        worker.app.metrics.answered_by_worker(HTTPStatus.GATEWAY_TIMEOUT)
    logger.error("%d stuck requests answered 504; this worker is replaced", len(stuck))
    worker.alive = False
    # Others in hand have their time to end, if the loop still turns.
    turns = worker.turns
    time.sleep(PATIENCE_SECONDS)
    if worker.turns != turns:
        time.sleep(worker.cfg.graceful_timeout)
    for conn in worker.connections.copy():
        with contextlib.suppress(OSError):
            if conn in worker.begun or conn.received or conn.raw.recv(1024):
                _abandon(conn, HTTPStatus.SERVICE_UNAVAILABLE, "this worker is stuck")
    os._exit(1)


def _abandon(conn: Connection, status: int, detail: str) -> None:
    """Answer for a request that nobody else will answer."""
    if conn.abandoned or conn.unsent:
        return
    conn.abandoned = True
    headers = "Retry-After: 1\r\nConnection: close\r\n"
    with contextlib.suppress(OSError):
        conn.raw.send(problem_response(status, detail, headers))
        conn.raw.shutdown(socket.SHUT_WR)
