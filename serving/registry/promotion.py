"""The commands that change a version selection: `promote` and `rollback`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from serving.policy.artefact import ArtefactError, Card, version_number, version_numbers
from serving.registry.assignment import difference, shadow_difference
from serving.registry.examination import examine_version
from serving.registry.selection import (
    FILE,
    STABLE,
    Selection,
    SelectionError,
    locked,
    read_selection,
    write_selection,
)
from serving.registry.trial import Trials
from serving.settings import Settings


def promote(
    settings: Settings,
    text: str | None,
    label: str | None,
    share: float | None,
    shadow: bool | None,
    require: Callable[[], object],
) -> str:
    """Select a version of the model, or always the newest; return a report.

    A label only keeps the version loaded. A share makes it a canary, and 0 ends that; `shadow`
    makes it the shadow, or ends that. An invalid selection is replaced, and its labels and
    canaries are lost. `require` raises if the current selection must not be changed.

    Raises:
        SelectionError: the version is missing, would be refused or cannot have this role, the
            selection was changed meanwhile, or writing failed.
    """
    folder = settings.models / settings.name
    given = {"label": label, "share": share, "shadow": shadow}
    roles = [role for role, value in given.items() if value is not None]
    if len(roles) > 1:
        raise SelectionError(f"--{roles[0]} and --{roles[1]} cannot be used together")
    if text is None and roles:
        raise SelectionError(f"a {roles[0]} needs a version")
    if label == STABLE:
        raise SelectionError(f"{STABLE!r} is the label of the served version: omit --label")
    before: Selection | None = None
    note = ""
    try:
        selection = before = read_selection(folder)
    except SelectionError as error:
        selection, note = Selection(), f"; replaced what was invalid: {error}"
    require()
    version = None if text is None else version_number(text)
    if share == 0 and version not in selection.shares:
        listed = ", ".join(map(str, selection.shares)) or "none"
        raise SelectionError(f"version {text} is not a canary; canaries: {listed}")
    if shadow is False and (version is None or version != selection.shadow):
        raise SelectionError(f"version {text} is not the shadow")
    if text is not None and share != 0 and shadow is not False:  # a refused version's role can end
        _require_servable(
            settings, text, selection, "canary" if share else "shadow" if shadow else ""
        )
    selection, done = _select(selection, version, label, share, shadow)
    _write(folder, before, selection)
    return f"{settings.name}: {done}{note}"


def _select(
    selection: Selection,
    version: int | None,
    label: str | None,
    share: float | None,
    shadow: bool | None,
) -> tuple[Selection, str]:
    """The selection after the change that `promote` was asked for, and a report of the change.

    Raises:
        SelectionError: the shares of the canaries add up to more than 1.
    """
    if version is None:
        return replace(selection, serve="newest"), "the newest version is served from now on"
    if label is not None:
        labels = {**selection.labels, label: version}
        return replace(selection, labels=labels), f"version {version} is labelled {label}"
    if shadow is not None:
        selection = replace(selection, shadow=version if shadow else None)
        what = "the shadow from now on" if shadow else "no longer the shadow"
        return selection, f"version {version} is {what}"
    if share is not None:
        answers = f"answers {share:g} of the episodes from now on"
        what = answers if share else "is no longer a canary"
        return selection.with_share(version, share), f"version {version} {what}"
    ended = ""
    if version in selection.shares:
        selection, ended = selection.with_share(version, 0), ", no longer as a canary"
    if version == selection.shadow:
        selection, ended = replace(selection, shadow=None), f"{ended}, no longer as the shadow"
    done = f"version {version} is served from now on{ended}"
    return replace(selection, serve=version), done


def rollback(settings: Settings) -> str:
    """Select the newest good version older than the selected one; return a report.

    Canaries end too: whatever the fault is, no newer version may keep answering.

    Raises:
        SelectionError: there is no such version, the model is unloaded, the selection was changed
            meanwhile, or writing failed.
    """
    folder = settings.models / settings.name
    selection = read_selection(folder)
    if selection.serve == "nothing":
        raise SelectionError(f"{settings.name} is unloaded: `promote` serves a version again")
    with Trials() as trials:
        numbers = _numbers(folder)
        good = (number for number, _ in _servable(folder, numbers, settings, trials))
        current = selection.serve if isinstance(selection.serve, int) else next(good, None)
        older = [number for number in numbers if current is not None and number < current]
        previous = next((number for number, _ in _servable(folder, older, settings, trials)), None)
    if previous is None:
        than = "" if current is None else f" before {current}"
        raise SelectionError(f"{settings.name} has no good version{than}")
    shadow = None if selection.shadow == previous else selection.shadow
    _write(folder, selection, replace(selection, serve=previous, canaries=(), shadow=shadow))
    ended = ", ".join(map(str, selection.shares))
    ended = ended and f"; no longer a canary: {ended}"
    if shadow != selection.shadow:
        ended += f"; no longer the shadow: {previous}"
    return f"{settings.name}: version {previous} is served from now on instead of {current}{ended}"


def _write(folder: Path, before: Selection | None, selection: Selection) -> None:
    """Write a selection derived from the one `before`, which is None if that was invalid.

    Raises:
        SelectionError: the file was changed while versions were examined, or writing failed.
    """
    with locked(folder):
        now: Selection | None = None
        with contextlib.suppress(SelectionError):
            now = read_selection(folder)
        if now != before:
            raise SelectionError(f"{folder / FILE} was changed meanwhile: check it and try again")
        write_selection(folder, selection)


def _require_servable(settings: Settings, text: str, selection: Selection, role: str) -> None:
    """Examine a version that is to be served, or to get a role in the selection.

    Raises:
        SelectionError: it is missing, would be refused, or does not fit the served version.
    """
    folder = settings.models / settings.name
    there = _numbers(folder)
    if version_number(text) not in there:
        listed = ", ".join(map(str, there)) or "none"
        rest = "without a version, the newest is served"
        raise SelectionError(f"{folder.name} has no version {text}; versions: {listed}; {rest}")
    with Trials() as trials:
        try:
            card = examine_version(folder / text, settings, trials).card
            served = _served(folder, selection, settings, trials) if role else None
        except ArtefactError as error:
            raise SelectionError(f"{folder / text}: {error}") from error
    if served is None:
        return
    number, served_card = served
    if str(number) == text:
        raise SelectionError(f"version {text} is served: it cannot be a {role} too")
    why = (difference if role == "canary" else shadow_difference)(card, served_card)
    if why:
        raise SelectionError(f"{folder / text}: {why}: version {number} is served")


def _served(
    folder: Path, selection: Selection, settings: Settings, trials: Trials
) -> tuple[int, Card] | None:
    """The version that a selection serves and its card, if it serves one."""
    if selection.serve == "nothing":
        return None
    numbers = [selection.serve] if isinstance(selection.serve, int) else _numbers(folder)
    return next(_servable(folder, numbers, settings, trials), None)


def _servable(
    folder: Path, numbers: list[int], settings: Settings, trials: Trials
) -> Iterator[tuple[int, Card]]:
    """The versions that a service would not refuse, with their cards."""
    for number in numbers:
        with contextlib.suppress(ArtefactError):
            yield number, examine_version(folder / str(number), settings, trials).card


def served_version(settings: Settings) -> int:
    """The version of the model that is served.

    Raises:
        SelectionError: no version is served, or the selection cannot be read.
    """
    folder = settings.models / settings.name
    selection = read_selection(folder)
    with Trials() as trials:
        served = _served(folder, selection, settings, trials)
    if served is None:
        raise SelectionError(f"{settings.name}: no version is served")
    return served[0]


def _numbers(folder: Path) -> list[int]:
    try:
        return version_numbers(folder)
    except OSError as error:
        raise SelectionError(f"{folder} cannot be read: {error.strerror}") from error
