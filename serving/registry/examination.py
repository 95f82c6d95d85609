"""The one way in which a version is found good or refused, by the service and every command."""

from pathlib import Path
from typing import TYPE_CHECKING

from serving.policy.artefact import ArtefactError, read, require_return
from serving.policy.tensorflow_import import import_tensorflow
from serving.registry.store import SHOWN_DIGITS, Store, find_files

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy


def examine_copy(
    store: Store, digest: str, name: str, version: int, min_return: float | None
) -> "Policy":
    """Check and load a version that was copied.

    Raises:
        ArtefactError: it is refused; the message says why.
    """
    artefact = read(store.path(digest))
    require_return(artefact.card, min_return)
    import_tensorflow()  # in a command only now, as it takes seconds
    from serving.policy.savedmodel import Policy

    return Policy(store.path(digest), artefact, name, version, digest[:SHOWN_DIGITS])


def examine(model_dir: Path, min_return: float | None) -> "Policy":
    """Examine a version as a service does before it serves it.

    Args:
        model_dir: `models/<name>/<version>`, whose name is a `version_number`.
        min_return: the least mean return, where there is one.

    Raises:
        ArtefactError: it would be refused; the message says why.
    """
    with Store() as store:
        try:
            digest = store.copy(model_dir, find_files(model_dir).paths)
        except OSError as error:
            raise ArtefactError(f"cannot be read: {error}") from error
        name, version = model_dir.parent.name, int(model_dir.name)
        return examine_copy(store, digest, name, version, min_return)
