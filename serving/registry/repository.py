"""The models of the service: which there are, and looking for new versions of them."""

import logging
import threading

from serving.errors import NotFoundError
from serving.metrics import Metrics
from serving.policy.savedmodel import Policy
from serving.registry.selection import Choice, read_choice, write_choice
from serving.registry.versions import Versions
from serving.schemas import ModelReport
from serving.settings import Settings

logger = logging.getLogger(__name__)


class Repository:
    """Every model under the models folder, each with its versions; one is the default.

    A request's name is looked up among the folders found here and is never a path.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.default = settings.name
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, Versions] = {}
        self._add(settings.name)

    def start(self) -> None:
        """Load in the background, so that the process answers that it is alive meanwhile."""
        threading.Thread(target=self._watch, name="repository", daemon=True).start()

    def policy(
        self, name: str | None = None, *, version: int | None = None, label: str | None = None
    ) -> Policy:
        """The policy to answer with: the served version of the default model, if not told else.

        Raises:
            NotFoundError: there is no such model, version or label, or it is not loaded.
            NotReadyError: none of the model's versions is served; says why.
        """
        versions = self._find(name or self.default)
        if version is not None:
            return versions.version(version)
        return versions.served() if label is None else versions.labelled(label)

    def report(self, name: str) -> ModelReport:
        """Which versions of a model there are, and which is served and why.

        Raises:
            NotFoundError: no model has that name.
        """
        return self._find(name).report(default=name == self.default)

    def names(self) -> list[str]:
        """Of all models, the default one first."""
        return sorted(self._models, key=lambda name: (name != self.default, name))

    def widest(self) -> int:
        """The most numbers that an observation of a served policy has; 1 where none is served."""
        return max((versions.width() for versions in self._models.copy().values()), default=1)

    def choose(self, name: str, choice: Choice) -> None:
        """Change what is served of a model, in this worker now and in the others within a poll.

        Raises:
            NotFoundError: no model has that name.
            ChoiceError: the models folder cannot be written.
        """
        versions = self._find(name)
        write_choice(self._settings.models / versions.name, choice)
        versions.refresh()

    def choice(self, name: str) -> Choice:
        """What is chosen to be served of a model.

        Raises:
            NotFoundError: no model has that name.
            ChoiceError: the file that says it is not as designed.
        """
        return read_choice(self._settings.models / self._find(name).name)

    def refresh(self) -> None:
        """Look for new models, and for new versions of each."""
        self._discover()
        for name in self.names():
            try:
                self._models[name].refresh()
            except OSError as error:
                logger.error("the versions of %s cannot be read: %s", name, error)

    def _find(self, name: str) -> Versions:
        if name not in self._models:
            # Another worker may have seen it already.
            self._discover()
        try:
            return self._models[name]
        except KeyError:
            raise NotFoundError(
                f"no model is called {name!r}; there are {', '.join(self.names())}"
            ) from None

    def _discover(self) -> None:
        try:
            for folder in self._settings.models.iterdir():
                known = folder.name in self._models or folder.name.startswith(".")
                if not known and folder.is_dir() and not folder.is_symlink():
                    self._add(folder.name)
        except OSError as error:
            logger.error("%s cannot be read: %s", self._settings.models, error)

    def _add(self, name: str) -> None:
        self._models[name] = Versions(self._settings.models / name, self._settings, self._metrics)

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            self.refresh()
            pause.wait(self._settings.poll_seconds)
