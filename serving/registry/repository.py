"""The model repository: finds the models and watches for new versions."""

import logging
import threading
import time

from serving.errors import NotFoundError
from serving.metrics import Metrics
from serving.policy.savedmodel import Policy
from serving.registry.selection import Selection, read_selection, write_selection
from serving.registry.versions import Versions
from serving.schemas import ModelReport
from serving.settings import Settings

logger = logging.getLogger(__name__)


class Repository:
    """Every model under the models folder, each with its versions; one is the default.

    A name in a request is looked up among the folders found here, never used as a path;
    `NotFoundError` is raised where no model has it.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.default = settings.name
        self._settings = settings
        self._metrics = metrics
        self._models = {settings.name: Versions(settings.models / settings.name, settings, metrics)}

    def start(self) -> None:
        """Load in the background, so that liveness checks are answered meanwhile."""
        threading.Thread(target=self._watch, name="repository", daemon=True).start()

    def policy(
        self, name: str | None = None, *, version: int | None = None, label: str | None = None
    ) -> Policy:
        """The policy to answer with; by default the served version of the default model.

        Raises:
            NotFoundError: the model, version or label is unknown or not loaded.
            NotReadyError: no version of the model is served; the message says why.
        """
        return self._find(name or self.default).policy(version, label)

    def report(self, name: str) -> ModelReport:
        """List a model's versions, and say which one is served and why."""
        return self._find(name).report(default=name == self.default)

    def names(self) -> list[str]:
        """Names of all models, the default first."""
        return sorted(self._models, key=lambda name: (name != self.default, name))

    def widest(self) -> int:
        """The most numbers that an observation of a served policy has; 1 where none is served."""
        served = [versions.served for versions in self._models.copy().values()]
        return max((len(one.card.observations.names) for one in served if one), default=1)

    def select(self, name: str, selection: Selection) -> None:
        """Change the version selection, in this worker now and in the others at their next poll.

        Raises:
            SelectionError: the models folder cannot be written.
        """
        versions = self._find(name)
        write_selection(versions.folder, selection)
        versions.refresh()

    def selection(self, name: str) -> Selection:
        """The version selection of a model.

        Raises:
            SelectionError: its file cannot be read or is invalid.
        """
        return read_selection(self._find(name).folder)

    def refresh(self) -> None:
        """Look for new models and new versions."""
        self._discover()
        for name in self.names():
            try:
                self._models[name].refresh()
            except OSError as error:
                logger.error("the versions of %s cannot be read: %s", name, error)

    def _find(self, name: str) -> Versions:
        if name not in self._models:
            # Another worker may have found it already.
            self._discover()
        if name not in self._models:
            raise NotFoundError(f"no model is called {name!r}; there are {', '.join(self.names())}")
        return self._models[name]

    def _discover(self) -> None:
        try:
            for folder in self._settings.models.iterdir():
                known = folder.name in self._models or folder.name.startswith(".")
                if not known and folder.is_dir() and not folder.is_symlink():
                    self._models[folder.name] = Versions(folder, self._settings, self._metrics)
        except OSError as error:
            logger.error("%s cannot be read: %s", self._settings.models, error)

    def _watch(self) -> None:
        while True:
            self.refresh()
            time.sleep(self._settings.poll_seconds)
