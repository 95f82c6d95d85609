"""The commands that change a version selection: `promote` and `rollback`."""

from pathlib import Path

import msgspec

from serving.policy.artefact import ArtefactError, read, require_return, version_numbers
from serving.registry.selection import STABLE, SelectionError, read_selection, write_selection
from serving.settings import Settings


def promote(settings: Settings, version: int | None, label: str | None) -> str:
    """Select a version of the model, or always the newest; with a label, label the version.

    Returns:
        The new selection, in a sentence.

    Raises:
        SelectionError: the version is missing or would be refused, or writing failed.
    """
    folder = settings.models / settings.name
    if label is not None and version is None:
        raise SelectionError("a label needs a version")
    if label == STABLE:
        raise SelectionError(f"{STABLE!r} is the label of the served version: omit --label")
    if version is not None:
        _require_good(folder, version, settings.min_return)
    selection = read_selection(folder)
    if label is not None and version is not None:
        selection = msgspec.structs.replace(selection, labels={**selection.labels, label: version})
        write_selection(folder, selection)
        return f"{settings.name}: version {version} is labelled {label}"
    write_selection(
        folder, msgspec.structs.replace(selection, serve="newest" if version is None else version)
    )
    what = "the newest version" if version is None else f"version {version}"
    return f"{settings.name}: {what} is served from now on"


def rollback(settings: Settings) -> str:
    """Select the newest good version older than the selected one.

    Returns:
        The new selection, in a sentence.

    Raises:
        SelectionError: there is no such version, or writing failed.
    """
    folder = settings.models / settings.name
    selection = read_selection(folder)
    good = (v for v in version_numbers(folder) if _is_good(folder, v, settings.min_return))
    current = selection.serve if isinstance(selection.serve, int) else next(good, None)
    older = (version for version in good if current is not None and version < current)
    previous = next(older, None)
    if previous is None:
        than = "" if current is None else f" before {current}"
        raise SelectionError(f"{settings.name} has no good version{than}")
    write_selection(folder, msgspec.structs.replace(selection, serve=previous))
    return f"{settings.name}: version {previous} is served from now on instead of {current}"


def _require_good(folder: Path, version: int, min_return: float | None) -> None:
    try:
        require_return(read(folder / str(version)).card, min_return)
    except ArtefactError as error:
        raise SelectionError(f"{folder / str(version)}: {error}") from error


def _is_good(folder: Path, version: int, min_return: float | None) -> bool:
    try:
        _require_good(folder, version, min_return)
    except SelectionError:
        return False
    return True
