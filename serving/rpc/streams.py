"""Calls that last for as long as their clients want."""

import threading
from typing import Any

import grpc


class Streams:
    """The open streams of one method; they end with the server."""

    def __init__(self, most: float) -> None:
        """Let no more than `most` be open at a time."""
        self._most = most
        self._lock = threading.Lock()
        self._open: set[Any] = set()  # their contexts
        self._has_ended = False

    def enter(self, context: Any) -> None:
        """Accept a stream, or end it: `RESOURCE_EXHAUSTED` if too many are open."""
        with self._lock:
            is_too_much = len(self._open) >= self._most
            has_ended = self._has_ended
            if not (is_too_much or has_ended):
                self._open.add(context)
        if has_ended:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the service is shutting down")
        if is_too_much:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams of this method")
        if not context.add_callback(lambda: self._leave(context)):
            self._leave(context)

    def _leave(self, context: Any) -> None:
        with self._lock:
            self._open.discard(context)

    def end(self) -> None:
        """Cancel all streams, and refuse new ones."""
        with self._lock:
            self._has_ended = True
            contexts = list(self._open)
        for context in contexts:
            context.cancel()
