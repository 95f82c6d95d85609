"""Replaces a worker some of whose requests never end."""

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
        """Answer the requests that are stuck, and end when the others have ended."""

    def abandon_all(self) -> None:
        """Answer every request of which a part has arrived: the process ends then."""


class Watchdog(Generic[T]):
    """A thread that knows when each request in flight began, and ends the process if one is stuck.

    Time is counted in its own ticks: a pause of the process, such as `docker pause`, is one tick.
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
        """A request is handled from now on."""
        self._in_flight[request] = self._ticks

    def end(self, request: T) -> None:
        """A request has its answer."""
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
        # Other requests in flight have their time to end, if the loop still runs.
        iterations = self._watched.iterations
        time.sleep(_LOOP_SECONDS)
        if self._watched.iterations != iterations:
            time.sleep(self._graceful_timeout)
        self._watched.abandon_all()
        os._exit(1)
