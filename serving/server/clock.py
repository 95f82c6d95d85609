"""A clock that stands still while its process does."""

import time

# Longer between two ticks, and the process was paused, or too busy to serve anybody.
_MAX_STEP_SECONDS = 2.0


class Clock:
    """Seconds that a loop had: what it did not have is not counted against those who wait for it.

    Attributes:
        now: seconds since it was made, as of the last tick.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        """Go on by what has passed since the last tick, 2 seconds at most."""
        last, self._last = self._last, time.monotonic()
        self.now += min(self._last - last, _MAX_STEP_SECONDS)
