"""The commands that change a version selection: `promote` and `rollback`."""

from pathlib import Path

from msgspec.structs import replace

from serving.policy.artefact import ArtefactError, version_number, version_numbers
from serving.registry.examination import examine_version
from serving.registry.selection import (
    STABLE,
    Selection,
    SelectionError,
    read_selection,
    write_selection,
)
from serving.registry.trial import Trials
from serving.settings import Settings


def promote(settings: Settings, text: str | None, label: str | None) -> str:
    """Select a version of the model, or always the newest, or label a version; return a report.

    A selection that is invalid is replaced, with its labels.

    Raises:
        SelectionError: the version is missing or would be refused, or writing failed.
    """
    folder = settings.models / settings.name
    if label is not None and text is None:
        raise SelectionError("a label needs a version")
    if label == STABLE:
        raise SelectionError(f"{STABLE!r} is the label of the served version: omit --label")
    version = None if text is None else version_number(text)
    if text is not None:
        there = _numbers(folder)
        if version not in there:
            listed = ", ".join(map(str, there)) or "none"
            rest = "without a version, the newest is served"
            raise SelectionError(
                f"{folder.name} has no version {text}; there are: {listed}; {rest}"
            )
        with Trials() as trials:
            fault = _fault(folder / text, settings, trials)
        if fault:
            raise SelectionError(f"{folder / text}: {fault}")
    try:
        selection, mended = read_selection(folder), ""
    except SelectionError as error:
        selection, mended = Selection(), f"; replaced what was invalid: {error}"
    if label is not None and version is not None:
        selection = replace(selection, labels={**selection.labels, label: version})
        done = f"version {version} is labelled {label}"
    else:
        selection = replace(selection, serve="newest" if version is None else version)
        what = "the newest version" if version is None else f"version {version}"
        done = f"{what} is served from now on"
    write_selection(folder, selection)
    return f"{settings.name}: {done}{mended}"


def rollback(settings: Settings) -> str:
    """Select the newest good version older than the selected one; return a report.

    Raises:
        SelectionError: there is no such version, or writing failed.
    """
    folder = settings.models / settings.name
    selection = read_selection(folder)
    with Trials() as trials:
        good = (v for v in _numbers(folder) if not _fault(folder / str(v), settings, trials))
        current = selection.serve if isinstance(selection.serve, int) else next(good, None)
        previous = next((v for v in good if current is not None and v < current), None)
    if previous is None:
        than = "" if current is None else f" before {current}"
        raise SelectionError(f"{settings.name} has no good version{than}")
    write_selection(folder, replace(selection, serve=previous))
    return f"{settings.name}: version {previous} is served from now on instead of {current}"


def _numbers(folder: Path) -> list[int]:
    try:
        return version_numbers(folder)
    except OSError as error:
        raise SelectionError(f"{folder} cannot be read: {error.strerror}") from error


def _fault(model_dir: Path, settings: Settings, trials: Trials) -> str | None:
    """Why the service would refuse a version."""
    try:
        examine_version(model_dir, settings, trials)
    except ArtefactError as error:
        return str(error)
    return None
