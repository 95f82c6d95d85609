"""The one way in which a version is found good or refused, by the service and every command."""

from pathlib import Path

from serving.policy.artefact import Artefact, ArtefactError, read, require_return
from serving.registry.store import Store, find_files
from serving.registry.trial import Trials


def examine(copy: Path, min_return: float | None, trials: Trials) -> Artefact:
    """Check and try a copy of a version.

    Args:
        copy: its folder.
        min_return: the least mean return, where there is one.
        trials: runs it.

    Raises:
        ArtefactError: it is refused; the message says why.
        TrialsEndedError: nothing can be tried any more.
    """
    artefact = read(copy)
    require_return(artefact.card, min_return)
    trials.run(copy)
    return artefact


def examine_version(model_dir: Path, min_return: float | None, trials: Trials) -> Artefact:
    """Examine a version as a service does before it serves it.

    Raises:
        ArtefactError: it would be refused; the message says why.
        TrialsEndedError: nothing can be tried any more.
    """
    with Store() as store:
        try:
            digest = store.copy(model_dir, find_files(model_dir).paths)
        except OSError as error:
            raise ArtefactError(f"cannot be read: {error}") from error
        return examine(store.path(digest), min_return, trials)
