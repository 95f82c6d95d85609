"""The versions in a model's folder, without TensorFlow."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.config import ConfigError, TrainingConfig, config_from
from training.errors import TrainingError
from training.files import CARD, lock, opened

# Placeholder for the card's own checksum while that is computed.
NO_CHECKSUM = "0" * 64
SIGNATURE = "model.sig"  # not listed on the card, because it covers the card
STAGING = ".writing-"  # prefix of a folder that is being written


class VersionError(TrainingError):
    """A folder is not a version that can be used as requested; the message says why."""


def newest_solved(base: Path) -> Path | None:
    """The newest version in `base` that is solved and whose files all match its card, if any."""
    numbers = [int(path.name) for path in base.glob("[0-9]*") if path.name.isdecimal()]
    for number in sorted(numbers, reverse=True):
        version = base / str(number)  # not `01`, which serving does not accept
        if _is_solved_and_whole(version):
            return version
    return None


def read_config(version: Path) -> TrainingConfig:
    """The config that a version was trained with.

    Raises:
        VersionError: it is not a version, or was not trained here.
    """
    try:
        card = _read_card(version)
        if card["training"] is None:
            raise VersionError(f"{version} was learned elsewhere: no config to continue with")
        return config_from(card["training"]["config"])
    # The file may hold anything: any type, any nesting.
    except (ConfigError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise VersionError(f"{version} has no config to continue with: {error}") from error


def read_sizes(version: Path) -> tuple[int, int]:
    """How many numbers an observation of a version's policy has, and how many actions it has.

    Raises:
        VersionError: it is not a version.
    """
    try:
        card = _read_card(version)
        return len(card["observations"]["names"]), len(card["actions"]["names"])
    except (LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise VersionError(f"{version} has no sizes to continue with: {error}") from error


def _read_card(version: Path) -> Any:
    return json.loads((version / CARD).read_text())


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below `folder`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def staging_folder(base: Path) -> Iterator[Path]:
    """A hidden folder for what is later renamed into place; what is left in it is removed.

    Folders that killed programs left are removed as well: nobody holds their locks.

    Args:
        base: folder of the versions.

    Raises:
        OSError: `base` cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        with opened(base) as descriptor:
            # `base` too: between being made and locked, a folder looks as if its program had died.
            lock(descriptor, wait=True)
            for left in base.glob(f"{STAGING}*"):
                with contextlib.suppress(OSError), opened(left) as other:
                    if lock(other):
                        shutil.rmtree(left)
            staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=base))
            lock(stack.enter_context(opened(staging)))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _is_solved_and_whole(version: Path) -> bool:
    try:
        text = (version / CARD).read_text()
        card = json.loads(text)
        listed, found = card["checksums"], checksums(version)
        # The card's own checksum is that of the card with a placeholder for the checksum.
        unsigned = text.replace(listed[CARD], NO_CHECKSUM)
        found[CARD] = hashlib.sha256(unsigned.encode()).hexdigest()
        found.pop(SIGNATURE, None)
        return card["solved"] is True and found == listed
    # The files may hold anything: any type, any nesting.
    except (LookupError, OSError, RecursionError, TypeError, ValueError):
        return False
