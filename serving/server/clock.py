"""A clock that stands still while its process does."""

import time

# A longer step means that the process was paused, or too busy to serve anybody.
_MAX_STEP_SECONDS = 2.0


class Clock:
    """Counts seconds only while its process runs: a pause does not count against clients.

    Attributes:
        now: seconds since the clock was made, as of the last tick.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        """Advance by the time since the last tick, 2 seconds at most."""
        last, self._last = self._last, time.monotonic()
        self.now += min(self._last - last, _MAX_STEP_SECONDS)
