"""Progress of a run: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from training.trainer import Progress

SECONDS_BETWEEN_LINES = 3.0


@contextmanager
def progress_reporter(max_env_steps: int) -> Iterator[Callable[[Progress], None]]:
    """Report to standard error; nothing but results goes to standard output.

    The time left assumes that the whole step budget is spent; most runs are solved earlier.
    """
    if not sys.stderr.isatty():
        yield _Lines()
        return
    speed = _Speed()
    with click.progressbar(length=max_env_steps, file=sys.stderr, width=20) as bar:

        def show(progress: Progress) -> None:
            bar.label = (
                f"return {progress.running_return:.0f}, {speed.of(progress) / 1000:.0f}k steps/s"
            )
            bar.update(progress.env_steps - bar.pos)

        yield show


class _Speed:
    """Environment steps per second since the first report: a resumed run does not begin at 0."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds = 0.0
        self.first_steps: int | None = None

    def of(self, progress: Progress) -> float:
        self.seconds = time.perf_counter() - self.start
        if self.first_steps is None:
            self.first_steps = progress.env_steps
        return (progress.env_steps - self.first_steps) / self.seconds


class _Lines:
    """A line for each evaluation, and one every few seconds between them."""

    def __init__(self) -> None:
        self.speed = _Speed()
        self.printed = 0.0  # seconds from the start to the last line

    def __call__(self, progress: Progress) -> None:
        steps_per_second = self.speed.of(progress)
        seconds = self.speed.seconds
        if progress.sampled is None and seconds < self.printed + SECONDS_BETWEEN_LINES:
            return
        self.printed = seconds
        parts = [
            f"{seconds:6.1f} s",
            f"{progress.env_steps} steps",
            f"{steps_per_second:.0f} steps/s",
            f"return {progress.running_return:.1f}",
        ]
        if progress.sampled is not None:
            parts.append(f"sampled {progress.sampled.mean:.1f}")
        if progress.greedy is not None:
            parts.append(f"greedy {progress.greedy.mean:.1f}")
        click.echo(", ".join(parts), err=True)
