"""What a run is doing: one live line on a terminal, plain lines elsewhere.

Importing this imports neither TensorFlow nor Gymnasium: their import is the first thing to show.
"""

import locale
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Protocol, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from training.state import Progress

SECONDS_BETWEEN_LINES = 3.0
SECONDS_TO_A_LINE_OF_A_PHASE = 10.0
REFRESHES_PER_SECOND = 10
SHORTEST_BAR, LONGEST_BAR = 4, 40  # columns


class Display(Protocol):
    """Where a run shows what it is doing."""

    def phase(self, name: str) -> None:
        """Show what the run does from now on, until the next phase or update."""

    def update(self, progress: "Progress", max_env_steps: int) -> None:
        """Show one update of a training that ends after `max_env_steps` at the latest."""

    def finish(self) -> None:
        """Show that the run has ended without being stopped: the bar is full."""


@contextmanager
def progress_display() -> Iterator[Display]:
    """Report to standard error; nothing but results goes to standard output.

    Anything else that is printed to standard error meanwhile gets lines of its own.
    """
    if sys.stderr.isatty():
        # Here, because the import takes 50 ms.
        from rich.console import Console

        # Plain text, and soft-wrapped: a path can be copied from a narrow terminal.
        console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
        if console.is_interactive:  # unlike TERM=dumb
            with _live(console) as line:
                yield line
            return
    lines = _Lines()
    try:
        yield lines
    finally:
        lines.finish()


@contextmanager
def _live(console: "Console") -> Iterator["_LiveLine"]:
    """Keep redrawing a line, below everything that is printed."""
    from rich.file_proxy import FileProxy
    from rich.live import Live
    from rich.text import Text

    class Above(FileProxy):
        # Without these attributes, click would write to the stream below this proxy.
        encoding, errors = "utf-8", "strict"

    encodings = (locale.getencoding(), console.encoding)
    line = _LiveLine(unicode=all(name.lower().startswith("utf") for name in encodings))
    live = Live(
        get_renderable=lambda: Text.assemble(*line.parts(console.width)),
        console=console,
        refresh_per_second=REFRESHES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    line.refresh = live.refresh
    with live, ExitStack() as stack:

        def above(stream: TextIO) -> Above:
            proxy = Above(console, stream)
            stack.callback(proxy.flush)
            return proxy

        stack.enter_context(redirect_stderr(above(sys.stderr)))
        if sys.stdout.isatty():  # an environment may print to the same terminal
            stack.enter_context(redirect_stdout(above(sys.stdout)))
        try:
            yield line
        finally:
            # Remove the line if a mistake ends the command before any training.
            live.transient = line.speed.first is None and line.fraction < 1


class _Speed:
    """Environment steps per second since the first update: a resumed run does not begin at 0."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None

    def of(self, env_steps: int) -> float | None:
        """None until the clock has moved."""
        now = time.perf_counter()
        if self.first is None:
            self.first = now, env_steps
        start, first_steps = self.first
        return (env_steps - first_steps) / (now - start) if now > start else None


class _LiveLine:
    """The phase, a bar of environment steps, the running return and the speed, in one line.

    The bar assumes that the whole step budget is spent; most runs are solved earlier.

    Attributes:
        refresh: draws the line at once, so that even the shortest phase is seen.
    """

    refresh: Callable[[], None]

    def __init__(self, *, unicode: bool) -> None:
        self.spinner, self.full, self.empty = (
            ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "━", "─") if unicode else ("|/-\\", "#", "-")
        )
        self.speed = _Speed()
        self.frame = 0
        self.name = "starting"
        self.fraction = 0.0
        self.figures = [""]  # alternative texts after the bar, the longest first

    def phase(self, name: str) -> None:
        self.name = name
        self.refresh()

    def update(self, progress: "Progress", max_env_steps: int) -> None:
        self.name = "training"
        self.fraction = min(1.0, progress.env_steps / max_env_steps)
        running_return = f" return {progress.running_return:.0f}"
        figures = [running_return, ""]
        speed = self.speed.of(progress.env_steps)
        if speed is not None:
            number, unit = (speed, "") if speed < 1000 else (speed / 1000, "k")
            long = f"  {number:.{len(unit)}f}{unit} steps/s"
            short = f" {number:.0f}{unit}/s"
            figures = [running_return + long, running_return + short, *figures]
        self.figures = figures  # in one assignment: another thread may draw at any moment

    def finish(self) -> None:
        self.name, self.fraction = "done", 1.0

    def parts(self, width: int) -> list[tuple[str, str]]:
        """Texts and their styles: the most that fits `width` columns, and at least the phase."""
        self.frame = (self.frame + 1) % len(self.spinner)
        # As wide as "evaluating", so that the bar does not move when that comes and goes.
        head = f"{self.spinner[self.frame]} {self.name:<10} "
        tails = [f" {int(100 * self.fraction):3}%{figures}" for figures in self.figures]
        tail = next((tail for tail in tails if len(head + tail) + SHORTEST_BAR <= width), "")
        length = min(LONGEST_BAR, width - len(head + tail))
        full = int(length * self.fraction)
        return [
            (head, ""),
            (self.full * full, "green"),
            (self.empty * (length - full), "dim"),
            (tail, ""),
        ]


class _Lines:
    """A line for each evaluation, one every few seconds between them, and one for a long phase."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.printed = 0.0  # seconds from the start to the last line
        self.speed = _Speed()
        self.timer: threading.Timer | None = None

    def phase(self, name: str) -> None:
        self.finish()
        # Print while the phase lasts: the run may hang in it.
        self.timer = threading.Timer(SECONDS_TO_A_LINE_OF_A_PHASE, self._print, [name])
        self.timer.daemon = True
        self.timer.start()

    def update(self, progress: "Progress", max_env_steps: int) -> None:  # noqa: ARG002  # see Display
        self.finish()
        speed = self.speed.of(progress.env_steps)
        seconds = time.perf_counter() - self.start
        if progress.sampled is None and seconds < self.printed + SECONDS_BETWEEN_LINES:
            return
        self.printed = seconds
        parts = [f"{progress.env_steps} steps"]
        if speed is not None:
            parts.append(f"{speed:.0f} steps/s")
        parts.append(f"return {progress.running_return:.1f}")
        if progress.sampled is not None:
            parts.append(f"sampled {progress.sampled.mean:.1f}")
        if progress.greedy is not None:
            parts.append(f"greedy {progress.greedy.mean:.1f}")
        self._print(*parts)

    def finish(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _print(self, *parts: str) -> None:
        seconds = time.perf_counter() - self.start
        click.echo(", ".join([f"{seconds:6.1f} s", *parts]), err=True)
