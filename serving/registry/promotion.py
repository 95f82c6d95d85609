"""The commands that change a version selection: `promote` and `rollback`."""

from pathlib import Path

from msgspec.structs import replace

from serving.policy.artefact import ArtefactError, read, require_return, version_numbers
from serving.registry.selection import STABLE, SelectionError, read_selection, write_selection
from serving.settings import Settings


def promote(settings: Settings, version: int | None, label: str | None) -> str:
    """Select a version of the model, or always the newest, or label a version; return a report.

    Raises:
        SelectionError: the version is missing or would be refused, or writing failed.
    """
    folder = settings.models / settings.name
    if label is not None and version is None:
        raise SelectionError("a label needs a version")
    if label == STABLE:
        raise SelectionError(f"{STABLE!r} is the label of the served version: omit --label")
    if version is not None and (fault := _fault(folder / str(version), settings)):
        raise SelectionError(f"{folder / str(version)}: {fault}")
    selection = read_selection(folder)
    if label is not None and version is not None:
        selection = replace(selection, labels={**selection.labels, label: version})
        done = f"version {version} is labelled {label}"
    else:
        selection = replace(selection, serve="newest" if version is None else version)
        what = "the newest version" if version is None else f"version {version}"
        done = f"{what} is served from now on"
    write_selection(folder, selection)
    return f"{settings.name}: {done}"


def rollback(settings: Settings) -> str:
    """Select the newest good version older than the selected one; return a report.

    Raises:
        SelectionError: there is no such version, or writing failed.
    """
    folder = settings.models / settings.name
    selection = read_selection(folder)
    good = (v for v in version_numbers(folder) if not _fault(folder / str(v), settings))
    current = selection.serve if isinstance(selection.serve, int) else next(good, None)
    previous = next((v for v in good if current is not None and v < current), None)
    if previous is None:
        than = "" if current is None else f" before {current}"
        raise SelectionError(f"{settings.name} has no good version{than}")
    write_selection(folder, replace(selection, serve=previous))
    return f"{settings.name}: version {previous} is served from now on instead of {current}"


def _fault(model_dir: Path, settings: Settings) -> str | None:
    """Why the service would refuse a version."""
    try:
        require_return(read(model_dir).card, settings.min_return)
    except ArtefactError as error:
        return str(error)
    return None
