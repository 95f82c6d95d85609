"""The version that a service with these settings would answer with."""

from typing import TYPE_CHECKING

from serving.errors import NotReadyError
from serving.metrics import Metrics
from serving.registry.examination import examine
from serving.registry.store import Store
from serving.registry.trial import Trials, TrialsEndedError
from serving.score.source import ScoreError
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow


def served_policy(settings: Settings, store: Store, trials: Trials) -> "Policy":
    """Load the selected version of the default model, after all checks of the service.

    Raises:
        ScoreError: none is served; the message says why.
    """
    from serving.registry.versions import Versions  # imports TensorFlow

    folder = settings.models / settings.name
    versions = Versions(folder, settings, Metrics(), store, only_served=True)
    try:
        while unexamined := versions.refresh():
            store.judge(unexamined, lambda copy: examine(copy, settings, trials))
        return versions.choose(None, None, None).policy
    except NotReadyError as error:
        raise ScoreError(error.detail) from error
    except (OSError, TrialsEndedError) as error:
        raise ScoreError(f"no version can be examined: {error}") from error
