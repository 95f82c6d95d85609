"""The checks that every version must pass, the same in the service and in every command."""

from pathlib import Path

from serving.policy.artefact import Artefact, ArtefactError, read, require_return
from serving.registry.store import Store, find_files
from serving.registry.trial import Trials, TrialsEndedError
from serving.settings import Settings


def examine(copy: Path, settings: Settings, trials: Trials) -> Artefact:
    """Check and try a copy of a version.

    Args:
        copy: its folder.
        settings: its `min_return` and `trusted_keys` are what the version must satisfy.
        trials: loads the version in a child process.

    Raises:
        ArtefactError: it is refused; the message says why.
        OSError: no process can be started to try it.
        TrialsEndedError: no version can be tried any more.
    """
    artefact = read(copy)
    if settings.trusted_keys is not None:
        # Needs the extra `sign`.
        from serving.policy.signature import read_trusted_keys, require_signature

        require_signature(copy, read_trusted_keys(settings.trusted_keys))
    require_return(artefact.card, settings.min_return)
    trials.run(copy)
    return artefact


def examine_version(model_dir: Path, settings: Settings, trials: Trials) -> Artefact:
    """Examine a version as a service with these settings does before serving it.

    Raises:
        ArtefactError: it would be refused, or cannot be examined here; the message says why.
    """
    with Store() as store:
        try:
            digest = store.copy(model_dir, find_files(model_dir).paths)
        except OSError as error:
            raise ArtefactError(f"cannot be read: {error}") from error
        try:
            return examine(store.path(digest), settings, trials)
        except (OSError, TrialsEndedError) as error:
            raise ArtefactError(f"cannot be examined: {error}") from error
