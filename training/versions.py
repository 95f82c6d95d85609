"""The versions in a model's folder, looked at without TensorFlow."""

import hashlib
import json
from pathlib import Path
from typing import Any

from training.config import ConfigError, TrainingConfig, config_from
from training.errors import TrainingError
from training.files import CARD

# Placeholder for the card's own checksum while that is computed.
NO_CHECKSUM = "0" * 64
SIGNATURE = "model.sig"  # which no card lists, because it covers the card


class VersionError(TrainingError):
    """A folder is not a version that can be used as requested; the message says why."""


def newest_solved(base: Path) -> Path | None:
    """The newest version in `base` that is solved and whose files all match its card, if any."""
    versions = [path for path in base.glob("[0-9]*") if path.name.isdecimal()]
    for version in sorted(versions, key=lambda path: int(path.name), reverse=True):
        if _is_solved_and_whole(version):
            return version
    return None


def read_config(version: Path) -> TrainingConfig:
    """The config that a version was trained with.

    Raises:
        VersionError: it is no version, or was not trained here.
    """
    try:
        card = _read_card(version)
        if card["training"] is None:
            raise VersionError(f"{version} was learned elsewhere, and has no config to go on with")
        return config_from(card["training"]["config"])
    # What is in the file may be anything, of any type, however deep.
    except (ConfigError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise VersionError(f"{version} has no config to go on with: {error}") from error


def read_sizes(version: Path) -> tuple[int, int]:
    """How many numbers an observation of a version's policy has, and how many actions it has.

    Raises:
        VersionError: it is no version.
    """
    try:
        card = _read_card(version)
        return len(card["observations"]["names"]), len(card["actions"]["names"])
    except (LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise VersionError(f"{version} has no sizes to go on with: {error}") from error


def _read_card(version: Path) -> Any:
    return json.loads((version / CARD).read_text())


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below `folder`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _is_solved_and_whole(version: Path) -> bool:
    try:
        text = (version / CARD).read_text()
        card = json.loads(text)
        listed, found = card["checksums"], checksums(version)
        # The card's own checksum is of the card with a placeholder in its place.
        unsigned = text.replace(listed[CARD], NO_CHECKSUM)
        found[CARD] = hashlib.sha256(unsigned.encode()).hexdigest()
        found.pop(SIGNATURE, None)
        return card["solved"] is True and found == listed
    # What is in the files may be anything, of any type, however deep.
    except (LookupError, OSError, RecursionError, TypeError, ValueError):
        return False
