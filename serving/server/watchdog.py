"""Replaces a worker if one of its requests never ends."""

import logging
import os
import threading
import time
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.5
_LOOP_SECONDS = 2.0

T = TypeVar("T")


class Watched(Protocol[T]):
    """What the watchdog needs of the worker."""

    iterations: int  # of its loop

    def stop(self, stuck: list[T]) -> None:
        """Answer the stuck requests, and end once the others have ended."""

    def abandon_all(self) -> None:
        """Answer every request that has arrived even in part: the process is about to end."""


class Watchdog(Generic[T]):
    """A thread that knows when each request in flight began, and ends the process if one is stuck.

    It counts its own ticks: a pause of the process, such as `docker pause`, counts as one tick.
    """

    def __init__(
        self, watched: Watched[T], request_timeout: float, graceful_timeout: float
    ) -> None:
        self._watched = watched
        # The first tick may come as soon as the request has begun.
        self._max_ticks = 1 + request_timeout / _TICK_SECONDS
        self._graceful_timeout = graceful_timeout
        self._ticks = 0
        self._in_flight: dict[T, int] = {}

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def begin(self, request: T) -> None:
        """Record that a request is in flight."""
        self._in_flight[request] = self._ticks

    def end(self, request: T) -> None:
        """Record that a request has its answer."""
        self._in_flight.pop(request, None)

    def _watch(self) -> None:
        stuck: list[T] = []
        while not stuck:
            time.sleep(_TICK_SECONDS)
            self._ticks += 1
            oldest = self._ticks - self._max_ticks
            stuck = [one for one, start in self._in_flight.copy().items() if start <= oldest]
        self._watched.stop(stuck)
        logger.error(
            "%d stuck requests answered %d; this worker is replaced",
            len(stuck),
            HTTPStatus.GATEWAY_TIMEOUT,
        )
        # If the loop still runs, other requests in flight have the usual time to end.
        iterations = self._watched.iterations
        time.sleep(_LOOP_SECONDS)
        if self._watched.iterations != iterations:
            time.sleep(self._graceful_timeout)
        self._watched.abandon_all()
        os._exit(1)
