"""The version selection of a model, in a file beside its versions: it survives restarts."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FILE = "serve.json"
# The label of the served version.
STABLE = "stable"

Version = Annotated[int, msgspec.Meta(ge=0)]


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of a model's versions to serve.

    Attributes:
        serve: a version, the newest that passes its checks, or nothing.
        labels: versions kept loaded beside the served one, by label.
    """

    serve: Version | Literal["newest", "nothing"] = "newest"
    labels: dict[Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_]+$")], Version] = {}


class SelectionError(Exception):
    """A selection cannot be served, read or written; the message says why."""


def read_selection(folder: Path) -> Selection:
    """Read the selection of the model in `folder`; without a file it is the newest version.

    Raises:
        SelectionError: the file cannot be read or is invalid.
    """
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Selection)
    except FileNotFoundError:
        return Selection()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SelectionError(f"{folder / FILE}: {error}") from error


def write_selection(folder: Path, selection: Selection) -> None:
    """Replace the selection atomically: synced to disk (fsync), then renamed.

    Raises:
        SelectionError: the selection is invalid, or the folder cannot be written.
    """
    try:
        msgspec.convert(msgspec.to_builtins(selection), Selection)
    except msgspec.ValidationError as error:
        raise SelectionError(str(error)) from error
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(selection) + b"\n")
            file.flush()
            os.fsync(descriptor)
        # The service may run as another user than the operator.
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / FILE)
    except OSError as error:
        raise SelectionError(f"{folder / FILE} cannot be written: {error.strerror}") from error
