"""The version selection of a model, in a file beside its versions: it survives restarts."""

import contextlib
import fcntl
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FILE = "serve.json"
# The label of the served version.
STABLE = "stable"

Version = Annotated[int, msgspec.Meta(ge=0)]


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that answers a share of the episodes in place of the served one."""

    version: Version
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of a model's versions to serve.

    Attributes:
        serve: a version, the newest that passes its checks, or nothing.
        labels: versions kept loaded beside the served one, by label.
        canaries: versions with a share of the episodes, in the order in which they were added.
        shadow: a version that also decides, unseen by clients, to compare it with the served one.
    """

    serve: Version | Literal["newest", "nothing"] = "newest"
    labels: dict[Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_]+\Z")], Version] = {}
    canaries: tuple[Canary, ...] = ()
    shadow: Version | None = None

    def __post_init__(self) -> None:
        """Check the canaries together.

        Raises:
            ValueError: one is listed twice, or their shares add up to more than 1.
        """
        listed = ", ".join(f"{one.share} of version {one.version}" for one in self.canaries)
        if len({one.version for one in self.canaries}) < len(self.canaries):
            raise ValueError(f"a version has more than one share: {listed}")
        if math.fsum(one.share for one in self.canaries) > 1:
            raise ValueError(f"the shares add up to more than 1: {listed}")

    @property
    def shares(self) -> dict[int, float]:
        """The share of the episodes of each canary, by version."""
        return {canary.version: canary.share for canary in self.canaries}

    @property
    def beside(self) -> set[int]:
        """The versions to load beside the served one: the canaries and the shadow."""
        return {*self.shares} if self.shadow is None else {*self.shares, self.shadow}

    def with_share(self, version: int, share: float) -> "Selection":
        """A copy with another share of the episodes for a version; a share of 0 ends its canary.

        Raises:
            SelectionError: the shares would add up to more than 1.
        """
        shares = self.shares | {version: share}
        canaries = tuple(Canary(*one) for one in shares.items() if one[1])
        try:
            return msgspec.structs.replace(self, canaries=canaries)
        except ValueError as error:
            raise SelectionError(str(error)) from error


class SelectionError(Exception):
    """A selection cannot be served, read or written; the message says why."""


def read_selection(folder: Path) -> Selection:
    """Read the selection of the model in `folder`; without a file, it is the newest version.

    Raises:
        SelectionError: the file cannot be read or is invalid.
    """
    try:
        with open(folder / FILE, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SelectionError(f"{folder / FILE} is not a file")
            selection = msgspec.json.decode(file.read(), type=Selection)
            selection.labels.pop(STABLE, None)  # always the served version's label
            return selection
    except FileNotFoundError:
        return Selection()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SelectionError(f"{folder / FILE}: {error}") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting, even a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the model in `folder`, so that no other holder of the lock changes its selection.

    Hold the lock only briefly: exports wait for it too. It has no effect on file systems that
    cannot lock folders.

    Raises:
        SelectionError: the folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_selection(folder: Path, selection: Selection) -> None:
    """Replace the selection atomically: synced to disk (fsync), then renamed.

    Raises:
        SelectionError: the selection is invalid, or the folder cannot be written.
    """
    content = msgspec.to_builtins(selection)
    for name in ("canaries", "shadow"):
        if getattr(selection, name) in ((), None):
            del content[name]  # which earlier releases of the service do not know
    try:
        msgspec.convert(content, Selection)
    except msgspec.ValidationError as error:
        raise SelectionError(str(error)) from error
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.encode(content) + b"\n")
                file.flush()
                os.fsync(descriptor)
            # The service may run as another user than the operator.
            os.chmod(temporary, 0o644)
            os.replace(temporary, folder / FILE)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> SelectionError:
    return SelectionError(f"{folder / FILE} cannot be written: {error.strerror}")
