"""The versions of one model: on disk, loaded and served."""

import gc
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from serving.errors import NoDefaultPolicyError, NotFoundError, NotReadyError, first_line
from serving.metrics import Metrics
from serving.policy.artefact import ArtefactError, read, version_numbers
from serving.policy.savedmodel import Policy
from serving.registry.assignment import Assignment, Choice
from serving.registry.selection import STABLE, Selection, SelectionError, read_selection
from serving.registry.states import Known, report_version, why_none_is_served
from serving.registry.store import SHOWN_DIGITS, Listing, Store, find_files
from serving.schemas import ModelReport, VersionReport
from serving.settings import Settings

logger = logging.getLogger(__name__)


class _UnexaminedError(Exception):
    """A copy must be examined before it can be loaded."""

    def __init__(self, version: int, digest: str) -> None:
        super().__init__(version, digest)
        self.version, self.digest = version, digest


class Versions:
    """Serves the selected version: the newest that passes its checks, or a certain one.

    What is served depends only on the folder and the operator's selection, so that all workers
    serve the same. While the folder cannot be read, its last known content counts. A new version
    is examined and loaded while the old one keeps serving; one Python assignment swaps them.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        metrics: Metrics,
        store: Store,
        *,
        only_served: bool = False,
    ) -> None:
        """Start from what other workers have saved about the folder.

        Args:
            folder: of the model.
            settings: say what to refuse.
            metrics: record refusals, swaps and what is served.
            store: takes copies of versions.
            only_served: whether nothing is loaded beside the served version.
        """
        self.folder = folder
        self._name = folder.name
        self._assignment = Assignment(self._name, None, Selection(), {})  # nothing answers yet
        self._settings = settings
        self._metrics = metrics
        self._store = store
        self._only_served = only_served
        self._listing = store.recall(self._name)
        self._numbers = sorted(self._listing.digests, reverse=True)
        self._known = {n: Known(None, digest) for n, digest in self._listing.digests.items()}
        self._labelled: dict[str, Policy] = {}
        self._being_examined: int | None = None  # the version that `refresh` waits for
        self._is_settled = False  # whether the last `refresh` waited for no examination
        self._is_away = True  # whether the folder cannot be read
        self._trouble = ""  # why the folder or the selection was not read
        self._lock = threading.Lock()  # one thread loads at a time
        metrics.add_model(self._name)

    @property
    def served(self) -> Policy | None:
        """The version that answers requests which name no version and belong to no canary."""
        return self._assignment.served

    def shadow(self, policy: Policy) -> Policy | None:
        """The shadow, which decides the same rows again, if `policy` is the served one."""
        assignment = self._assignment
        return assignment.shadow if policy is assignment.served else None

    def choose(self, version: int | None, label: str | None, episode: str | None) -> Choice:
        """The policy to answer with: by version, else by label, else by episode.

        Without any of these, it is the served one.

        Raises:
            NotFoundError: the version or the label is not loaded.
            NotReadyError: no version is served; the message says why.
        """
        if version is not None:
            for loaded in self.loaded():
                if loaded.version == version:
                    return Choice(loaded)
            raise NotFoundError(f"version {version} of {self._name} is not loaded")
        if label is not None and label != STABLE:
            if policy := self._labelled.get(label):
                return Choice(policy)
            raise NotFoundError(f"no version of {self._name} is labelled {label!r}")
        if self.served is None:
            # Once one worker has reported that it is ready, all must answer.
            self.refresh()
        assignment = self._assignment
        if assignment.served:
            return Choice(assignment.served) if label else assignment.choose(episode)
        error = NoDefaultPolicyError if self._name == self._settings.name else NotReadyError
        raise error(f"no version of {self._name} is served: {self._why_not()}")

    def loaded(self) -> list[Policy]:
        """The policies that can answer, the served one first."""
        assignment = self._assignment
        beside = (*assignment.beside.values(), *self._labelled.values())
        return list(dict.fromkeys(filter(None, (assignment.served, *beside))))

    def digests(self) -> set[str]:
        """The copies that this model needs, or that are still to be examined."""
        return {known.digest for known in self._known.copy().values()}

    def refresh(self) -> str | None:
        """Read the folder, and load and serve what is selected.

        Returns:
            The digest of a copy that must be examined first, if there is one.
        """
        with self._lock:
            self._read()
            try:
                self._load_selected()
            except _UnexaminedError as error:
                self._being_examined, self._is_settled = error.version, False
                return error.digest
            self._being_examined, self._is_settled = None, True
            return None

    def _load_selected(self) -> None:
        loaded = {(policy.version, policy.digest): policy for policy in self.loaded()}
        wanted = self._wanted()
        candidates = [wanted] if isinstance(wanted, int) else self._numbers
        policies = (self._load(number, loaded) for number in candidates if wanted != "nothing")
        served = next(filter(None, policies), None)
        selection = self._listing.selection
        # Load these before assigning, so that a starting worker gives no episode another version.
        beside, unexamined = self._load_beside(selection.beside, loaded)
        self._serve(Assignment(self._name, served, selection, beside))
        if unexamined:
            raise unexamined
        labels = selection.labels
        labelled = {label: self._load(number, loaded) for label, number in labels.items()}
        self._labelled = {label: policy for label, policy in labelled.items() if policy}
        asked = {*self._numbers, *candidates, *labels.values(), *selection.beside}
        self._known = {n: known for n, known in self._known.items() if n in asked}
        digests = {n: known.digest for n, known in self._known.items() if known.digest}
        self._listing = Listing(selection, digests)
        self._store.remember(self._name, self._listing)

    def _load_beside(
        self, chosen: Iterable[int], loaded: dict[tuple[int, str], Policy]
    ) -> tuple[dict[int, Policy], _UnexaminedError | None]:
        """Canaries and the shadow, by version, and an error if one must be examined first.

        The served version does not wait for that; the copy loaded before stays in use.
        """
        beside: dict[int, Policy] = {}
        unexamined = None
        for version in chosen:
            try:
                policy = self._load(version, loaded)
            except _UnexaminedError as error:
                policy, unexamined = self._assignment.beside.get(version), error
            if policy:
                beside[version] = policy
        return beside, unexamined

    def report(self, *, default: bool) -> ModelReport:
        """The state of every version on disk; `default` is whether `/act` uses this model."""
        if not self._is_settled:
            # All workers must report the same; another one may have examined a version since.
            self.refresh()
        assignment = self._assignment
        served = assignment.served.version if assignment.served else None
        # Include missing versions that are selected as canaries or shadow, or labelled.
        beside = (*assignment.selected.beside, *assignment.selected.labels.values())
        numbers = sorted({*self._numbers, *beside}, reverse=True)
        versions = [self._report(one, assignment) for one in numbers]
        return ModelReport(self._name, default, served, versions, assignment.selection)

    def _read(self) -> None:
        """Read the folder's versions and selection; keep the last ones if that fails."""
        trouble = ""
        try:
            self._numbers, self._is_away = version_numbers(self.folder), False
            selection = read_selection(self.folder)
            self._listing.selection = Selection(selection.serve) if self._only_served else selection
        except SelectionError as error:
            trouble = f"version selection unchanged: {error}"
        except OSError as error:
            self._is_away = True
            trouble = f"the versions of {self._name} cannot be read: {error}"
        if trouble and trouble != self._trouble:
            logger.error("%s", trouble)
        self._trouble = trouble

    def _wanted(self) -> int | Literal["newest", "nothing"]:
        pin = self._settings.pin if self._name == self._settings.name else None
        return self._listing.selection.serve if pin is None else pin

    def _load(self, version: int, loaded: dict[tuple[int, str], Policy]) -> Policy | None:
        """Copy and load a version, unless that was done; None if it is refused."""
        known = self._known.get(version, Known())
        fingerprint: object = None
        digest = known.digest if self._is_away else ""
        try:
            if not self._is_away:
                if version not in self._numbers:
                    raise ArtefactError("it is not there")
                paths, fingerprint = find_files(self.folder / str(version))
                if known.fingerprint != fingerprint:
                    known = Known(fingerprint, self._store.copy(self.folder / str(version), paths))
            if not known.digest or (known.reason and not self._is_away):
                return None
            digest = known.digest
            key = version, digest[:SHOWN_DIGITS]
            if key not in loaded:
                loaded[key] = self._load_copy(version, digest)
            self._known[version] = Known(fingerprint, digest)
            return loaded[key]
        except _UnexaminedError:
            self._known[version] = known
            raise
        except OSError as error:
            self._read()
            if self._is_away:
                return self._load(version, loaded)
            # Without the path, which may be a temporary file's: a repeated reason is logged once.
            reason = f"cannot be read: {error.strerror or error}"
            # Keep the digest of the good copy, to serve it if the folder goes away after all.
            self._refuse(version, Known(None, known.digest, reason))
        except Exception as error:  # any error refuses this version and affects no other
            self._refuse(version, Known(fingerprint, digest, first_line(error)))
        return None

    def _load_copy(self, version: int, digest: str) -> Policy:
        reason = self._store.verdict(digest)
        if reason is None:
            raise _UnexaminedError(version, digest)
        if reason:
            raise ArtefactError(reason)
        model_dir = self._store.path(digest)
        return Policy(model_dir, read(model_dir), self._name, version, digest[:SHOWN_DIGITS])

    def _refuse(self, version: int, known: Known) -> None:
        before = self._known.get(version, Known())
        self._known[version] = known
        if (known.reason, known.fingerprint) != (before.reason, before.fingerprint):
            logger.error("refused %s version %d: %s", self._name, version, known.reason)
            self._metrics.refusals(self._name).inc()

    def _serve(self, assignment: Assignment) -> None:
        policy, before, earlier = assignment.served, self.served, self._assignment
        self._assignment = assignment
        if assignment.selection != earlier.selection and (assignment.canaries or earlier.canaries):
            logger.info("canaries of %s: %s", self._name, assignment.describe())
        if assignment.shadow is not earlier.shadow:
            which = f"version {assignment.shadow.version}" if assignment.shadow else "none"
            logger.info("shadow of %s: %s", self._name, which)
        del earlier  # and its policies
        if policy is before:
            return
        self._metrics.serves(
            self._name, policy.version if policy else -1, policy.digest if policy else "0"
        )
        if before and policy:
            self._metrics.swaps(self._name).inc()
        if before:
            before = None
            gc.collect()  # a loaded graph has reference cycles
        which = f"{policy.version}, digest {policy.digest}" if policy else "none"
        logger.info("serving %s version %s", self._name, which)

    def _report(self, version: int, assignment: Assignment) -> VersionReport:
        return report_version(
            version,
            self._known.get(version, Known()),
            wanted=self._wanted(),
            assignment=assignment,
            labels=[label for label, one in self._labelled.items() if one.version == version],
            is_examined=version == self._being_examined,
        )

    def _why_not(self) -> str:
        reason = why_none_is_served(self._wanted(), self._being_examined, self._known.copy())
        return reason or self._trouble or "there is none yet"
