"""The only module that uses undocumented names of gunicorn."""

import errno
import logging
import sys
import time
from typing import Any

from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer

logger = logging.getLogger(__name__)

WORKER_BOOT_ERROR = GunicornArbiter.WORKER_BOOT_ERROR  # a worker exit status that ends the service


def living_workers(arbiter: GunicornArbiter) -> list[Any]:
    """The workers of a master, each a `gunicorn.workers.base.Worker`."""
    return list(arbiter.WORKERS.values())


class Arbiter(GunicornArbiter):
    """gunicorn's master, with the methods below replaced."""

    def __init__(self, app: object) -> None:
        self._last_check = time.monotonic()
        self._check_from = 0.0
        super().__init__(app)

    def murder_workers(self) -> None:
        """Kill workers that do not report, but not for a time in which this process was paused.

        After `docker unpause`, or when a machine wakes up, every worker is overdue at once.
        """
        now = time.monotonic()
        if now - self._last_check > 5.0:
            self._check_from = now + self.timeout
        self._last_check = now
        if now >= self._check_from:
            super().murder_workers()

    def run(self) -> None:
        """Run until the end; the exit status says why, even if two workers cannot start."""
        try:
            super().run()
        except HaltServer as error:
            self.cfg.on_exit(self)
            sys.exit(error.exit_status)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            logger.error("cannot listen: another process took the address during the start")
            self.cfg.on_exit(self)
            sys.exit(2)

    def reexec(self) -> None:
        """Refuse SIGUSR2: a second master would bind the same address and find it in use."""
        logger.warning("SIGUSR2 is ignored: start a second service beside this one instead")
