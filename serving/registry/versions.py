"""The versions of one model: on disk, loaded and served."""

import gc
import logging
import threading
from pathlib import Path
from typing import Literal

from serving.errors import NotFoundError, NotReadyError, UnknownLabelError
from serving.metrics import Metrics
from serving.policy.artefact import ArtefactError, read, require_return, version_numbers
from serving.policy.savedmodel import Policy
from serving.registry.selection import STABLE, Selection, SelectionError, read_selection
from serving.schemas import ModelReport, VersionReport
from serving.settings import Settings

logger = logging.getLogger(__name__)

# Path, size and mtime of every file; a refused version is tried again when they change.
Fingerprint = tuple[tuple[str, int, int], ...]


class Versions:
    """Serves the selected version: the newest that passes its checks, or a pinned one.

    A version is loaded and checked while the old one keeps serving; one assignment then swaps
    them, so a bad version never replaces a good one. The served version stays loaded when its
    folder vanishes.
    """

    def __init__(self, folder: Path, settings: Settings, metrics: Metrics) -> None:
        self.name = folder.name
        self._folder = folder
        self._settings = settings
        self._metrics = metrics
        self._selection = Selection()
        self._served: Policy | None = None
        self._labelled: dict[str, Policy] = {}
        self._refused: dict[int, tuple[Fingerprint, str]] = {}
        self._lock = threading.Lock()  # one thread loads at a time
        metrics.add_model(self.name)

    def served(self) -> Policy:
        """The policy to answer with.

        Raises:
            NotReadyError: no version is served; the message says why.
        """
        if self._served is None:
            # Once one worker has said that it is ready, all must answer.
            self.refresh()
        policy = self._served
        if policy is None:
            raise NotReadyError(f"no version of {self.name} is served: {self._why_not()}")
        return policy

    def width(self) -> int:
        """How many numbers an observation of the served policy has; 1 where none is served."""
        policy = self._served
        return 1 if policy is None else len(policy.card.observations.names)

    def version(self, number: int) -> Policy:
        """A version by its number.

        Raises:
            NotFoundError: it is not loaded, as it is neither served nor labelled.
        """
        for policy in (self._served, *self._labelled.values()):
            if policy is not None and policy.version == number:
                return policy
        raise NotFoundError(f"version {number} of {self.name} is not loaded")

    def labelled(self, label: str) -> Policy:
        """A version by its label; "stable" is the served one.

        Raises:
            UnknownLabelError: no loaded version has that label.
            NotReadyError: the label is "stable", and no version is served.
        """
        if label == STABLE:
            return self.served()
        try:
            return self._labelled[label]
        except KeyError:
            raise UnknownLabelError(f"no version of {self.name} is labelled {label!r}") from None

    def refresh(self) -> None:
        """Read the version selection, and load and serve the selected version.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._lock:
            try:
                self._selection = read_selection(self._folder)
            except SelectionError as error:
                logger.error("version selection unchanged: %s", error)
            if self._wanted() == "nothing":
                self._serve(None)
            for version in self._candidates():
                policy = self._load(version)
                if policy is not None:
                    self._serve(policy)
                    break
            labels = self._selection.labels.items()
            loaded = {label: self._load(version) for label, version in labels}
            self._labelled = {label: policy for label, policy in loaded.items() if policy}

    def report(self, *, default: bool) -> ModelReport:
        """The state of every version on disk.

        Args:
            default: whether this is the service's default model.
        """
        served = self._served
        return ModelReport(
            name=self.name,
            default=default,
            version=None if served is None else served.version,
            versions=[self._report(version, served) for version in version_numbers(self._folder)],
        )

    def _wanted(self) -> int | Literal["newest", "nothing"]:
        pin = self._settings.pin
        return self._selection.serve if pin is None or self.name != self._settings.name else pin

    def _candidates(self) -> list[int]:
        """Versions to try, in order: only those newer than the served one if newest is selected."""
        wanted = self._wanted()
        if wanted == "nothing":
            return []
        if wanted != "newest":
            return [wanted]
        served = self._served
        return [
            version
            for version in version_numbers(self._folder)
            if served is None or version > served.version
        ]

    def _load(self, version: int) -> Policy | None:
        """Load the version if it is not loaded yet; None if it is refused."""
        try:
            return self.version(version)
        except NotFoundError:
            pass
        model_dir = self._folder / str(version)
        fingerprint = _fingerprint(model_dir)
        if version in self._refused and self._refused[version][0] == fingerprint:
            return None
        try:
            artefact = read(model_dir)
            require_return(artefact.card, self._settings.min_return)
            policy = Policy(model_dir, artefact)
        except ArtefactError as error:
            self._refused[version] = (fingerprint, str(error))
            logger.error("refused %s version %d: %s", self.name, version, error)
            self._metrics.refusals(self.name).inc()
            return None
        self._refused.pop(version, None)
        return policy

    def _serve(self, policy: Policy | None) -> None:
        before, self._served = self._served, policy
        if policy is before:
            return
        self._metrics.served_version(self.name).set(policy.version if policy else -1)
        if before is not None:
            self._metrics.swaps(self.name).inc()
            before = None
            gc.collect()  # a loaded graph has reference cycles
        logger.info("serving %s version %s", self.name, policy.version if policy else "none")

    def _report(self, version: int, served: Policy | None) -> VersionReport:
        labels = [label for label, policy in self._labelled.items() if policy.version == version]
        if served is not None and version == served.version:
            return VersionReport(version, "served", self._why())
        if labels:
            return VersionReport(version, "labelled", f"labelled {', '.join(labels)}")
        if version in self._refused:
            return VersionReport(version, "refused", self._refused[version][1])
        return VersionReport(version, "waiting", f"not selected: {self._why()}")

    def _why(self) -> str:
        """Why the served version is served."""
        wanted = self._wanted()
        if wanted == "nothing":
            return "the model is unloaded"
        if wanted == "newest":
            return "the newest version that passes every check is served"
        return f"version {wanted} is pinned"

    def _why_not(self) -> str:
        wanted = self._wanted()
        if wanted == "nothing":
            return "it is unloaded"
        reasons = [
            f"version {version}: {reason}"
            for version, (_, reason) in sorted(self._refused.items(), reverse=True)
            if wanted in ("newest", version)
        ]
        return "; ".join(reasons) or "there is none yet"


def _fingerprint(model_dir: Path) -> Fingerprint:
    try:
        return tuple(
            (str(path), status.st_size, status.st_mtime_ns)
            for path in sorted(model_dir.rglob("*"))
            for status in [path.lstat()]
        )
    except OSError:  # it is being copied or deleted right now
        return ()
