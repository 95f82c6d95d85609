"""Errors that are reported in one line instead of a traceback."""


class TrainingError(Exception):
    """A command cannot do what it was asked to; the message says why."""

    exit_status = 2  # wrong use


class StorageError(TrainingError):
    """The files of a run or a study cannot be read or written any more; the message says why."""

    exit_status = 1


class StopRequestedError(Exception):
    """The work was not finished, because a stop was requested."""


def first_line(error: Exception) -> str:
    """The first line of a library's error, or its type if it has no message."""
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__
