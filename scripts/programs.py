"""Programs that a script starts, and that end before it does."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def exit_at_signals() -> None:
    """Let the first of Ctrl-C, SIGTERM and SIGHUP end this script by `SystemExit`, quietly."""

    def leave(number: int, _frame: object) -> None:
        for one in ENDING:  # a second Ctrl-C shall not interrupt the end of what was started
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for one in ENDING:
        signal.signal(one, leave)


@contextmanager
def running(
    command: Sequence[str], *, stdout: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program; SIGTERM ends it if it still runs after the `with` block."""
    # A process group of its own: Ctrl-C in a terminal would also reach the program, which may be
    # importing modules then and end with a traceback.
    with subprocess.Popen(command, process_group=0, stdout=stdout, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()  # which does nothing if it has ended
            process.wait()
