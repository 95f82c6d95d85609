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
# Why the served version is served, by what is selected.
_WHY: dict[int | str, str] = {
    "nothing": "the model is unloaded",
    "newest": "the newest version that passes every check is served",
}


class Versions:
    """Serves the selected version: the newest that passes its checks, or a pinned one.

    A version is loaded and checked while the old one keeps serving; one assignment then swaps
    them, so a bad version never replaces a good one. The served version stays loaded when its
    folder vanishes.
    """

    def __init__(self, folder: Path, settings: Settings, metrics: Metrics) -> None:
        self.folder = folder
        self.served: Policy | None = None  # the version that answers
        self._name = folder.name
        self._settings = settings
        self._metrics = metrics
        self._selection = Selection()
        self._labelled: dict[str, Policy] = {}
        self._refused: dict[int, tuple[Fingerprint, str]] = {}
        self._lock = threading.Lock()  # one thread loads at a time
        metrics.add_model(self._name)

    def policy(self, version: int | None, label: str | None) -> Policy:
        """The policy to answer with: of a version, else of a label, else the served one.

        Raises:
            NotFoundError: the version or the label is not loaded.
            NotReadyError: no version is served; the message says why.
        """
        if version is not None:
            if policy := self._loaded(version):
                return policy
            raise NotFoundError(f"version {version} of {self._name} is not loaded")
        if label is not None and label != STABLE:
            if policy := self._labelled.get(label):
                return policy
            raise UnknownLabelError(f"no version of {self._name} is labelled {label!r}")
        if self.served is None:
            # Once one worker has said that it is ready, all must answer.
            self.refresh()
        if policy := self.served:
            return policy
        raise NotReadyError(f"no version of {self._name} is served: {self._why_not()}")

    def refresh(self) -> None:
        """Read the version selection, and load and serve the selected version.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._lock:
            try:
                self._selection = read_selection(self.folder)
            except SelectionError as error:
                logger.error("version selection unchanged: %s", error)
            policy = next(filter(None, map(self._load, self._candidates())), None)
            if policy or self._wanted() == "nothing":
                self._serve(policy)
            labels = self._selection.labels.items()
            loaded = {label: self._load(version) for label, version in labels}
            self._labelled = {label: policy for label, policy in loaded.items() if policy}

    def report(self, *, default: bool) -> ModelReport:
        """The state of every version on disk; `default` is whether `/act` uses this model."""
        policy = self.served
        served = policy.version if policy else None
        versions = [self._report(version, served) for version in version_numbers(self.folder)]
        return ModelReport(self._name, default, served, versions)

    def _wanted(self) -> int | Literal["newest", "nothing"]:
        pin = self._settings.pin
        return self._selection.serve if pin is None or self._name != self._settings.name else pin

    def _candidates(self) -> list[int]:
        """Versions to try, in order: only those newer than the served one if newest is selected."""
        wanted = self._wanted()
        if isinstance(wanted, int):
            return [wanted]
        if wanted == "nothing":
            return []
        oldest = self.served.version + 1 if self.served else 0
        return [version for version in version_numbers(self.folder) if version >= oldest]

    def _loaded(self, version: int) -> Policy | None:
        loaded = (self.served, *self._labelled.values())
        return next((policy for policy in loaded if policy and policy.version == version), None)

    def _load(self, version: int) -> Policy | None:
        """Load the version if it is not loaded yet; None if it is refused."""
        if policy := self._loaded(version):
            return policy
        model_dir = self.folder / str(version)
        fingerprint = _fingerprint(model_dir)
        if version in self._refused and self._refused[version][0] == fingerprint:
            return None
        try:
            artefact = read(model_dir)
            require_return(artefact.card, self._settings.min_return)
            policy = Policy(model_dir, artefact)
        except ArtefactError as error:
            self._refused[version] = (fingerprint, str(error))
            logger.error("refused %s version %d: %s", self._name, version, error)
            self._metrics.refusals(self._name).inc()
            return None
        self._refused.pop(version, None)
        return policy

    def _serve(self, policy: Policy | None) -> None:
        before, self.served = self.served, policy
        if policy is before:
            return
        self._metrics.served_version(self._name).set(policy.version if policy else -1)
        if before is not None:
            self._metrics.swaps(self._name).inc()
            before = None
            gc.collect()  # a loaded graph has reference cycles
        logger.info("serving %s version %s", self._name, policy.version if policy else "none")

    def _report(self, version: int, served: int | None) -> VersionReport:
        labels = [label for label, policy in self._labelled.items() if policy.version == version]
        wanted = self._wanted()
        why = _WHY.get(wanted, f"version {wanted} is pinned")
        if version == served:
            return VersionReport(version, "served", why)
        if labels:
            return VersionReport(version, "labelled", f"labelled {', '.join(labels)}")
        if version in self._refused:
            return VersionReport(version, "refused", self._refused[version][1])
        return VersionReport(version, "waiting", f"not selected: {why}")

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
            (str(path), (status := path.lstat()).st_size, status.st_mtime_ns)
            for path in sorted(model_dir.rglob("*"))
        )
    except OSError:  # it is being copied or deleted right now
        return ()
