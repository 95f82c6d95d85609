"""How much memory the requests and answers of one worker may hold."""

import threading


class Budget:
    """Bytes of requests and answers that a worker holds.

    Attributes:
        limit: the most bytes.
        held: bytes that connections hold; only the worker's loop changes it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._taken = 0
        self._lock = threading.Lock()

    def is_exceeded(self) -> bool:
        """Whether more is held than the limit, so that a connection must be dropped."""
        return self.held + self._taken > self.limit

    def take(self, size: int) -> bool:
        """Count an unpacked body or a gRPC message, from any thread; False if there is no room."""
        with self._lock:
            if self.held + self._taken + size > self.limit:
                return False
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        """Stop counting bytes that were taken."""
        with self._lock:
            self._taken -= size
