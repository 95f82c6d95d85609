"""Programs that a script starts, and that end before it does."""

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_OF_SILENCE = 3.0


def say(text: str) -> None:
    """Print a line and flush it, so that it appears at once in a pipe, too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def exit_at_signals() -> None:
    """Let the first of Ctrl-C, SIGTERM and SIGHUP end this script by `SystemExit`, quietly."""

    def leave(number: int, _frame: object) -> None:
        for one in ENDING:  # a second Ctrl-C must not interrupt the shutdown of the programs
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for one in ENDING:
        signal.signal(one, leave)


@contextmanager
def running(
    command: Sequence[str], *, stdout: int | None = None, stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program; SIGTERM ends it if it still runs after the `with` block."""
    # A process group of its own: Ctrl-C in a terminal would also reach the program, which may be
    # importing modules then and end with a traceback.
    with subprocess.Popen(
        command, process_group=0, stdout=stdout, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # which does nothing if it has ended
            process.wait()


def run_and_show(command: Sequence[str], form: Callable[[str], str | None] = str) -> int:
    """Run a program to its end, and print its lines, or the elapsed time while it prints none.

    Args:
        command: the program and its arguments.
        form: what to print for a line of either stream; None for nothing.

    Returns:
        The program's exit status.
    """
    started = time.monotonic()
    lines: queue.Queue[str | None] = queue.Queue()

    def read(output: Iterable[str]) -> None:
        for line in output:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    def show(line: str) -> None:
        if (shown := form(line)) is not None:
            say(shown)

    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=read, args=(process.stdout,))
        reader.start()
        try:
            while True:
                try:
                    line = lines.get(timeout=SECONDS_OF_SILENCE)
                except queue.Empty:
                    say(f"  {time.monotonic() - started:.0f} s")
                    continue
                if line is None:
                    return process.wait()
                show(line)
        finally:
            process.terminate()  # which does nothing if it has ended
            reader.join()
            while not lines.empty():  # its last words
                if (line := lines.get()) is not None:
                    show(line)
