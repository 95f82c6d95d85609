"""gunicorn's thread worker, where its own behaviour is not good enough for this service."""

import socket
from http import HTTPStatus

from gunicorn import util
from gunicorn.workers import base
from gunicorn.workers.gthread import ThreadWorker

from serving.errors import problem_body


class Worker(ThreadWorker):
    """Answers what is not HTTP at all in the one shape of errors, and not in HTML."""

    def init_process(self) -> None:
        """Begin; gunicorn calls it after the fork and has no setting for its error page."""
        base.util.write_error = write_problem
        super().init_process()


def write_problem(connection: socket.socket, status: int, _reason: str, detail: str) -> None:
    """Answer a request that never reached the application, and promise to close."""
    body = problem_body(status, detail or HTTPStatus(status).phrase)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(connection, head.encode("ascii") + body)
