"""The versions on disk, and the one that is served."""

import logging
import threading
from pathlib import Path

from serving.errors import NotReadyError
from serving.policy import Policy, PolicyLoadError

logger = logging.getLogger(__name__)


class Repository:
    """Serves the newest version of one model that can be loaded, and looks for newer ones.

    A version is loaded and checked beside the one that is served, then takes its place in
    one assignment. One that is refused is not tried again, because a version's folder never
    changes.
    """

    def __init__(self, models: Path, name: str, poll_seconds: float) -> None:
        self.name = name
        self._folder = models / name
        self._poll_seconds = poll_seconds
        self._current: Policy | None = None
        self._refused: dict[int, str] = {}

    def start(self) -> None:
        """Load in the background, so that the process answers that it is alive meanwhile."""
        threading.Thread(target=self._watch, name="repository", daemon=True).start()

    def current(self) -> Policy:
        """The policy to answer with.

        Raises:
            NotReadyError: there is none; says why.
        """
        policy = self._current
        if policy is None:
            reasons = [self._refused[version] for version in sorted(self._refused, reverse=True)]
            raise NotReadyError("; ".join(reasons) or f"no version of {self.name} is loaded yet")
        return policy

    def refresh(self) -> None:
        """Serve the newest version that can be loaded."""
        for version in sorted(self._versions(), reverse=True):
            if self._current is not None and version <= self._current.version:
                return
            if version in self._refused:
                continue
            try:
                self._current = Policy(self._folder / str(version))
            except PolicyLoadError as error:
                self._refused[version] = str(error)
                logger.error("refused %s", error)
            else:
                logger.info("serving %s version %d", self.name, version)
                return

    def _versions(self) -> list[int]:
        try:
            # A leading zero would give one version two names.
            return [
                int(path.name)
                for path in self._folder.iterdir()
                if path.name.isdecimal() and path.name == str(int(path.name))
            ]
        except FileNotFoundError:
            return []

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.refresh()
            except OSError as error:
                logger.error("%s cannot be read: %s", self._folder, error)
            pause.wait(self._poll_seconds)
