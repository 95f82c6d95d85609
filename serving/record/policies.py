"""Loads the policies that made recorded decisions from disk."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serving.policy.artefact import ArtefactError
from serving.registry.examination import examine
from serving.registry.store import SHOWN_DIGITS, Store, find_files
from serving.registry.trial import Trials
from serving.schemas import ModelVersion
from serving.settings import MODEL_NAME, Settings

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow


class Policies:
    """Loads each version once, as a service does; use it in a `with` statement."""

    def __init__(self, models: Path, trusted_keys: Path | None, trials: Trials) -> None:
        """Load from a models folder; with trusted keys, only versions that one of them signed."""
        self._models = models
        self._settings = Settings(trusted_keys=trusted_keys)
        self._trials = trials
        self._store = Store()
        self._loaded: dict[ModelVersion, Policy] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def find(self, model: ModelVersion) -> "Policy":
        """The policy of a version with that digest.

        Raises:
            ArtefactError: it is missing, has another digest, or would not be served.
        """
        if model not in self._loaded:
            self._loaded[model] = self._load(model)
        return self._loaded[model]

    def _load(self, model: ModelVersion) -> "Policy":
        from serving.policy.savedmodel import Policy

        if not re.fullmatch(MODEL_NAME.pattern, model.name):
            raise ArtefactError(f"{model.name!r} is not the name of a model")
        model_dir = self._models / model.name / str(model.version)
        try:
            digest = self._store.copy(model_dir, find_files(model_dir).paths)
            shown = digest[:SHOWN_DIGITS]
            if shown != model.digest:
                raise ArtefactError(f"{model_dir} has the digest {shown}, not {model.digest}")
            copy = self._store.path(digest)
            artefact = examine(copy, self._settings, self._trials)
        except OSError as error:
            raise ArtefactError(f"{model_dir} cannot be read: {error}") from error
        return Policy(copy, artefact, model.name, model.version, shown)
