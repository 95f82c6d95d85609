"""What the requests and answers of one worker may hold of memory."""

import threading


class Budget:
    """Bytes of requests and answers that a worker holds.

    Attributes:
        limit: the most bytes.
        held: by connections; only the loop changes it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._unpacked = 0
        self._lock = threading.Lock()

    def is_exceeded(self) -> bool:
        """Whether a connection has to give way."""
        return self.held + self._unpacked > self.limit

    def take(self, size: int) -> bool:
        """Count bytes of an unpacked body, from any thread; False if there is no room."""
        with self._lock:
            if self.held + self._unpacked + size > self.limit:
                return False
            self._unpacked += size
            return True

    def give_back(self, size: int) -> None:
        """Stop counting bytes of an unpacked body."""
        with self._lock:
            self._unpacked -= size
