"""Choosing what is served, for a person: `promote` and `rollback`."""

from pathlib import Path

import msgspec

from serving.policy.artefact import ArtefactError, read, require_return
from serving.registry.selection import (
    STABLE,
    ChoiceError,
    read_choice,
    version_numbers,
    write_choice,
)
from serving.settings import Settings


def promote(settings: Settings, version: int | None, label: str | None) -> str:
    """Choose a version of the model, or always the newest one; with a label, label it.

    Returns:
        What is chosen now, in a sentence.

    Raises:
        ChoiceError: there is no such version, it would be refused, or nothing can be written.
    """
    folder = settings.models / settings.name
    if label is not None and version is None:
        raise ChoiceError("a label needs a version")
    if label == STABLE:
        raise ChoiceError(f"{STABLE!r} is the label of the served version: promote it")
    if version is not None:
        _require_good(folder, version, settings.min_return)
    choice = read_choice(folder)
    if label is not None and version is not None:
        choice = msgspec.structs.replace(choice, labels={**choice.labels, label: version})
        write_choice(folder, choice)
        return f"{settings.name}: version {version} is labelled {label}"
    write_choice(
        folder, msgspec.structs.replace(choice, serve="newest" if version is None else version)
    )
    what = "the newest version" if version is None else f"version {version}"
    return f"{settings.name}: {what} is served from now on"


def rollback(settings: Settings) -> str:
    """Choose the newest good version before the one that is chosen now.

    Returns:
        What is chosen now, in a sentence.

    Raises:
        ChoiceError: there is none, or nothing can be written.
    """
    folder = settings.models / settings.name
    choice = read_choice(folder)
    good = (v for v in version_numbers(folder) if _is_good(folder, v, settings.min_return))
    if isinstance(choice.serve, int):
        chosen: int | None = choice.serve
    else:
        chosen = next(good, None)
    before = next((version for version in good if chosen is not None and version < chosen), None)
    if before is None:
        than = "" if chosen is None else f" before {chosen}"
        raise ChoiceError(f"{settings.name} has no good version{than}")
    write_choice(folder, msgspec.structs.replace(choice, serve=before))
    return f"{settings.name}: version {before} is served from now on, and no more {chosen}"


def _require_good(folder: Path, version: int, min_return: float | None) -> None:
    try:
        require_return(read(folder / str(version)).card, min_return)
    except ArtefactError as error:
        raise ChoiceError(f"{folder / str(version)}: {error}") from error


def _is_good(folder: Path, version: int, min_return: float | None) -> bool:
    try:
        _require_good(folder, version, min_return)
    except ChoiceError:
        return False
    return True
