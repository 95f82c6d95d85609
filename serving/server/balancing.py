"""How new connections are balanced among the workers, who all listen on one socket.

Left to the kernel, the first worker to wake up takes and keeps all that a client opens at once.
With a socket per worker (`reuse_port`), a worker that ends loses the connections that wait for it.
"""

import math
import mmap

_NONE = 2**32 - 1
DELAY_SECONDS = 0.001
# The other workers may be busy with a large request, or stuck: do not wait for them any longer.
MAX_DELAY_SECONDS = 0.005


class ConnectionBalancer:
    """The number of connections of each worker, in shared memory; made before the fork.

    Room for `slots` workers; a worker without a slot is ignored.
    """

    def __init__(self, slots: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * slots)).cast("I")
        for slot in range(slots):
            self.withdraw(slot)
        self._least = 0
        self._retry_at = self._delay_until = -math.inf

    def report(self, slot: int, connections: int) -> None:
        """Publish how many connections the worker in a slot has."""
        if slot < len(self._counts):
            self._counts[slot] = connections

    def withdraw(self, slot: int) -> None:
        """Publish that a worker accepts no more connections, or is gone."""
        self.report(slot, _NONE)

    def has_any(self) -> bool:
        """Whether any worker accepts connections."""
        return min(self._counts) != _NONE

    def accept_delay(self, connections: int, now: float) -> float:
        """Seconds to leave a new connection to workers that have fewer; 0 to accept it now.

        Args:
            connections: of this worker.
            now: seconds of a monotonic clock.
        """
        least = min(self._counts)
        if connections <= least + least // 8:
            return 0.0
        # Start a new delay: this is a later connection, or other workers have accepted some.
        if now > self._retry_at + 4 * MAX_DELAY_SECONDS or least != self._least:
            self._least, self._delay_until = least, now + MAX_DELAY_SECONDS
        if now >= self._delay_until:
            return 0.0
        self._retry_at = now + DELAY_SECONDS
        return DELAY_SECONDS
