"""The model repository: finds the models and watches for new versions."""

import logging
import os
import random
import re
import signal
import threading
import time
from typing import Literal

from msgspec.structs import replace

from serving.errors import NotFoundError
from serving.metrics import Metrics
from serving.policy.savedmodel import Policy
from serving.registry.assignment import Choice
from serving.registry.examination import examine
from serving.registry.selection import locked, read_selection, write_selection
from serving.registry.store import Store
from serving.registry.trial import Trials, TrialsEndedError
from serving.registry.versions import Versions
from serving.schemas import ModelReport
from serving.settings import MODEL_NAME, Settings
from serving.statistics import array_name

logger = logging.getLogger(__name__)


class Repository:
    """Every model under the models folder, each with its versions; one is the default.

    A name in a request is looked up among the folders found here, never used as a path. Methods
    that take a name raise `NotFoundError` if no model has it.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        trials: Trials,
        store: Store | None = None,
    ) -> None:
        """Copy versions into `store`, which a service's workers share; each is tried before use."""
        self.default = settings.name
        self._settings = settings
        self._metrics = metrics
        self._store = store or Store()
        self._trials = trials
        self._troubles: set[str] = set()  # of the last `refresh`, so that each is logged once
        self._models: dict[str, Versions] = {}
        self._add(settings.name)

    def start(self) -> None:
        """Load in the background, so that liveness checks are answered meanwhile."""
        threading.Thread(target=self._watch, name="repository", daemon=True).start()

    def choose(
        self,
        name: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        episode: str | None = None,
    ) -> Choice:
        """The policy to answer with; by default the served version of the default model.

        A version or label in the request takes precedence over the episode's canary.

        Raises:
            NotFoundError: the model, version or label is unknown or not loaded.
            NotReadyError: no version of the model is served; the message says why.
        """
        return self._find(self.default if name is None else name).choose(version, label, episode)

    def policy(self, name: str | None = None) -> Policy:
        """The served version of a model, by default of the default model.

        Raises:
            NotFoundError, NotReadyError: as `choose` does.
        """
        return self.choose(name).policy

    def shadow(self, policy: Policy) -> Policy | None:
        """A policy's shadow, which decides the same rows again, if there is one."""
        versions = self._models.get(policy.name)
        return versions.shadow(policy) if versions else None

    def report(self, name: str) -> ModelReport:
        """List a model's versions, and say which one is served and why."""
        return self._find(name).report(default=name == self.default)

    def reports(self) -> list[ModelReport]:
        """As `report`, for all current models, the default one first."""
        return [one.report(default=name == self.default) for name, one in self._all()]

    def loaded(self, name: str | None = None) -> list[Policy]:
        """The policies that can answer, of a model or of all; each model's served one first."""
        models = [one for _, one in self._all()] if name is None else [self._find(name)]
        return [policy for versions in models for policy in versions.loaded()]

    def names(self) -> list[str]:
        """Names of all models, the default first."""
        return [name for name, _ in self._all()]

    def widest(self) -> int:
        """The length of the longest observation that a served policy takes.

        Raises:
            NotReadyError: no policy is served; the message says why the default model has none.
        """
        served = [versions.served for versions in self._models.copy().values()]
        policies = [one for one in served if one] or [self.policy()]
        return max(len(one.card.observations.names) for one in policies)

    def select(self, name: str, serve: Literal["newest", "nothing"]) -> None:
        """Change what is selected, in this worker now and in the others at their next poll.

        Raises:
            SelectionError: the file cannot be read, is invalid or cannot be written.
        """
        versions = self._find(name)
        with locked(versions.folder):
            write_selection(versions.folder, replace(read_selection(versions.folder), serve=serve))
        while unexamined := versions.refresh():
            self._examine(unexamined)
        self._forget_unloaded()

    def refresh(self) -> None:
        """Look for new models and new versions, and load what is to be served."""
        while True:
            troubles, gone = self._discover()
            for name in gone:
                self._models.pop(name).refresh()
                self._metrics.remove_model(name)
            models = self._models.copy().values()
            unexamined = [digest for versions in models if (digest := versions.refresh())]
            if not unexamined:
                break
            try:
                # One at random, so that no model waits for all versions of another.
                self._examine(random.choice(unexamined))  # noqa: S311 # not for secrets
            except OSError as error:
                troubles.add(f"a version cannot be examined: {error}")
                break
        for trouble in sorted(troubles - self._troubles):
            logger.error("%s", trouble)
        self._troubles = troubles
        self._store.clean_up(set().union(*(versions.digests() for versions in models)))
        self._forget_unloaded()

    def _forget_unloaded(self) -> None:
        """Remove the counts of the versions that are no longer loaded, or no longer shadows."""
        models = self._models.copy().values()
        loaded = (policy for versions in models for policy in versions.loaded())
        self._metrics.statistics.keep(policy.key for policy in loaded)
        pairs = ((one, self.shadow(one)) for versions in models if (one := versions.served))
        self._metrics.comparisons.keep(
            array_name("shadow", served.key, shadow.key) for served, shadow in pairs if shadow
        )

    def _examine(self, digest: str) -> None:
        self._store.judge(digest, lambda copy: examine(copy, self._settings, self._trials))

    def _all(self) -> list[tuple[str, Versions]]:
        models = self._models.copy().items()
        return sorted(models, key=lambda item: (item[0] != self.default, item[0]))

    def _find(self, name: str) -> Versions:
        versions = self._models.get(name)
        if versions is None:
            # Another worker may have found it already.
            self._discover()
            versions = self._models.get(name)
        if versions is None:
            raise NotFoundError(f"no model is called {name!r}; there are {', '.join(self.names())}")
        return versions

    def _discover(self) -> tuple[set[str], set[str]]:
        """Add new models.

        Returns:
            What is wrong with the folder, and the models whose folders are gone; none of these if
            the folder cannot be read.
        """
        try:
            with os.scandir(self._settings.models) as entries:
                found = {one.name: one.is_dir(follow_symlinks=False) for one in entries}
        except OSError as error:
            return {f"{self._settings.models} cannot be read: {error.strerror}"}, set()
        troubles = set()
        for name, is_folder in found.items():
            if is_folder and re.fullmatch(MODEL_NAME.pattern, name):
                if name not in self._models:
                    self._add(name)
            elif not name.startswith("."):
                troubles.add(f"{name!r} in {self._settings.models} is not a model and is ignored")
        return troubles, self._models.keys() - found.keys() - {self.default}

    def _add(self, name: str) -> None:
        """Add a model, unless another thread has."""
        folder = self._settings.models / name
        versions = Versions(folder, self._settings, self._metrics, self._store)
        self._models.setdefault(name, versions)

    def _watch(self) -> None:
        while True:
            try:
                self.refresh()
            except TrialsEndedError as error:
                logger.critical("%s; this process ends, and needs a successor", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except Exception:  # no error may end the search before its process ends
                logger.exception("the search for versions failed and will be repeated")
            time.sleep(self._settings.poll_seconds)
