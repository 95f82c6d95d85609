"""What an operator wants served, in a file beside a model's versions: it survives restarts."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FILE = "serve.json"
# What the served version is called where a label is asked for.
STABLE = "stable"

Version = Annotated[int, msgspec.Meta(ge=0)]


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model's choice.

    Attributes:
        serve: a version, the newest one that passes every check, or nothing.
        labels: other versions that are held ready under names of their own.
    """

    serve: Version | Literal["newest", "nothing"] = "newest"
    labels: dict[Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_]+$")], Version] = {}


class ChoiceError(Exception):
    """What was chosen cannot be served, read or written; says why."""


def read_choice(folder: Path) -> Choice:
    """The choice for the model in `folder`; without a file the newest version.

    Raises:
        ChoiceError: there is a file, and it is not as designed.
    """
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Choice)
    except FileNotFoundError:
        return Choice()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ChoiceError(f"{folder / FILE}: {error}") from error


def write_choice(folder: Path, choice: Choice) -> None:
    """Put a choice in the place of the one before, in one step.

    Raises:
        ChoiceError: the choice is not as designed, or the folder cannot be written.
    """
    try:
        msgspec.convert(msgspec.to_builtins(choice), Choice)
    except msgspec.ValidationError as error:
        raise ChoiceError(str(error)) from error
    try:
        descriptor, aside = tempfile.mkstemp(prefix=".writing-", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(choice) + b"\n")
            file.flush()
            os.fsync(descriptor)
        # Another user than the operator may serve.
        os.chmod(aside, 0o644)
        os.replace(aside, folder / FILE)
    except OSError as error:
        raise ChoiceError(f"{folder / FILE} cannot be written: {error.strerror}") from error


def version_numbers(folder: Path) -> list[int]:
    """The versions in a model's folder, the newest first; none where there is no folder.

    Raises:
        OSError: it cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    # A leading zero would give one version two names.
    return sorted(
        (int(name) for name in names if name.isdecimal() and name == str(int(name))), reverse=True
    )
