"""Errors that are reported in one line instead of a traceback."""


class TrainingError(Exception):
    """A command cannot do what it was asked to; the message says why."""

    exit_status = 2  # wrong use


class StopRequestedError(Exception):
    """What was under way was not finished, because a stop was requested."""


def first_line(error: Exception) -> str:
    """The first line of an error of a library, or its type where it says nothing."""
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__
