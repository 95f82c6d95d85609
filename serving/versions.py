"""The versions of one model on the disk, and the one that is served."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from serving.artefact import ArtefactError, read, require_return
from serving.errors import NotReadyError
from serving.messages import ModelReport, VersionReport
from serving.metrics import Metrics
from serving.policy import Policy
from serving.settings import Settings

logger = logging.getLogger(__name__)

# Path, size and time of change of every file: other ones, and a refused version is tried again.
Fingerprint = tuple[tuple[str, int, int], ...]


class Versions:
    """Serves the newest version that passes every check.

    A version is loaded and checked beside the one that is served, then takes its place in
    one assignment, so that a bad one never replaces a good one. A version that is served
    stays so when its folder vanishes.
    """

    def __init__(self, folder: Path, settings: Settings, metrics: Metrics) -> None:
        self._folder = folder
        self._settings = settings
        self._metrics = metrics
        self._served: Policy | None = None
        self._refused: dict[int, tuple[Fingerprint, str]] = {}
        self._lock = threading.Lock()  # one thread at a time loads

    def current(self) -> Policy:
        """The policy to answer with.

        Raises:
            NotReadyError: there is none; says why.
        """
        if self._served is None:
            # Another worker may be ready already, and this one must then answer as well.
            self.refresh()
        policy = self._served
        if policy is None:
            reasons = [
                f"version {version}: {reason}"
                for version, (_, reason) in sorted(self._refused.items(), reverse=True)
            ]
            raise NotReadyError("; ".join(reasons) or f"{self._folder.name} has no version yet")
        return policy

    def refresh(self) -> None:
        """Serve the newest version that can be served.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._lock:
            for version in sorted(self._on_disk(), reverse=True):
                if self._served is not None and version <= self._served.version:
                    return
                if self._load(version):
                    return

    def report(self, *, default: bool) -> ModelReport:
        """Every version on the disk and what became of it.

        Args:
            default: whether this is the service's default model.
        """
        served = self._served
        return ModelReport(
            name=self._folder.name,
            default=default,
            version=None if served is None else served.version,
            versions=[
                self._report(version, served) for version in sorted(self._on_disk(), reverse=True)
            ],
        )

    def _report(self, version: int, served: Policy | None) -> VersionReport:
        if served is not None and version == served.version:
            return VersionReport(version, "served", "the newest version that passes every check")
        if version in self._refused:
            return VersionReport(version, "refused", self._refused[version][1])
        if served is not None and version < served.version:
            return VersionReport(version, "waiting", f"version {served.version} is newer")
        return VersionReport(version, "waiting", "not tried yet")

    def _load(self, version: int) -> bool:
        model_dir = self._folder / str(version)
        fingerprint = _fingerprint(model_dir)
        if version in self._refused and self._refused[version][0] == fingerprint:
            return False
        try:
            artefact = read(model_dir)
            require_return(artefact.card, self._settings.min_return)
            policy = Policy(model_dir, artefact)
        except ArtefactError as error:
            self._refused[version] = (fingerprint, str(error))
            logger.error("refused %s version %d: %s", self._folder.name, version, error)
            self._metrics.refusals.labels(self._folder.name).inc()
            return False
        self._refused.pop(version, None)
        if self._served is not None:
            self._metrics.swaps.labels(policy.name).inc()
        self._served = policy
        self._metrics.served_version.labels(policy.name).set(version)
        logger.info("serving %s version %d", policy.name, version)
        return True

    def _on_disk(self) -> Iterator[int]:
        try:
            for path in self._folder.iterdir():
                # A leading zero would give one version two names.
                if path.name.isdecimal() and path.name == str(int(path.name)):
                    yield int(path.name)
        except FileNotFoundError:
            return


def _fingerprint(model_dir: Path) -> Fingerprint:
    try:
        return tuple(
            (str(path), status.st_size, status.st_mtime_ns)
            for path in sorted(model_dir.rglob("*"))
            for status in [path.lstat()]
        )
    except OSError:  # it is being copied or deleted just now
        return ()
