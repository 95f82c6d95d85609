"""How new connections are shared out among the workers, who all listen on one socket.

Left to the kernel, the first worker to wake up takes all that a client opens at once, and keeps
them; with a socket each (`reuse_port`), what waits for a worker that ends is lost with it.
"""

import math
import mmap

_NONE = 2**32 - 1
PAUSE_SECONDS = 0.001
# So long others have to take a connection: they may be busy with a large request, or stuck.
PATIENCE_SECONDS = 0.005


class Shares:
    """The workers' numbers of connections, in memory that they share; made before the fork.

    There is room for `places` of them. Who has none is not waited for.
    """

    def __init__(self, places: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * places)).cast("I")
        for place in range(places):
            self.forget(place)
        self._least = 0
        self._again = self._patient_until = -math.inf

    def tell(self, place: int, connections: int) -> None:
        """Say how many connections a worker has, which it numbers by its place."""
        if place < len(self._counts):
            self._counts[place] = connections

    def forget(self, place: int) -> None:
        """Say that a worker takes no more connections, or is gone."""
        self.tell(place, _NONE)

    def pause(self, connections: int, now: float) -> float:
        """How long to leave a new connection to workers that have fewer.

        Args:
            connections: of the worker that asks.
            now: seconds, by any clock that goes on.

        Returns:
            Seconds until it should ask again; 0 to take the connection now.
        """
        least = min(self._counts)
        if connections <= least + least // 8:
            return 0.0
        # Another connection than the last time, or the others are at it.
        if now > self._again + 4 * PATIENCE_SECONDS or least != self._least:
            self._least, self._patient_until = least, now + PATIENCE_SECONDS
        if now >= self._patient_until:
            return 0.0
        self._again = now + PAUSE_SECONDS
        return PAUSE_SECONDS
