"""The numbers of a run as a CSV file and as TensorBoard events."""

import csv
import os
import socket
import time
from pathlib import Path
from typing import Any, Self

import tensorflow as tf

from training.errors import TrainingError
from training.files import write_text
from training.state import Progress


class MetricsError(TrainingError):
    """A file of metrics does not belong to its run's checkpoint; the message says why."""


COLUMNS = (
    "update",
    "env_steps",
    "episodes",
    "running_return",
    "learning_rate",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "sampled_return",
    "greedy_return",
)


def row(progress: Progress) -> dict[str, float]:
    """The metrics of one update by column; an evaluation only if one took place."""
    metrics: dict[str, float] = {
        "update": progress.update,
        "env_steps": progress.env_steps,
        "episodes": progress.episodes,
        "running_return": progress.running_return,
        "learning_rate": progress.learning_rate,
        **progress.losses._asdict(),
        "explained_variance": progress.explained_variance,
    }
    if progress.sampled is not None:
        metrics["sampled_return"] = progress.sampled.mean
    if progress.greedy is not None:
        metrics["greedy_return"] = progress.greedy.mean
    return metrics


class MetricsFile:
    """`metrics.csv`: one row per update, and nothing that depends on the clock."""

    def __init__(self, path: Path, updates: int) -> None:
        """Open the file and keep the rows of the first `updates` updates.

        Raises:
            MetricsError: a row that the checkpoint counts is missing or damaged.
        """
        # A crash must not lose rows that a checkpoint counts: none can be computed again.
        write_text(path, "".join([",".join(COLUMNS), "\n", *_rows(path, updates)]))
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, progress: Progress) -> None:
        """Add the row of an update."""
        self._writer.writerow(row(progress))

    def flush(self) -> None:
        """Sync all rows to disk (fsync), so that no crash loses rows older than a checkpoint."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _rows(path: Path, updates: int) -> list[str]:
    lines = path.read_text().splitlines(keepends=True) if updates and path.exists() else []
    rows = lines[1 : updates + 1]
    for number in range(1, updates + 1):
        row = rows[number - 1] if number <= len(rows) else ""
        cells = row.split(",")
        if cells[0] != str(number) or len(cells) != len(COLUMNS) or not row.endswith("\n"):
            raise MetricsError(f"{path} has no row of update {number}, which the checkpoint counts")
    return rows


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`, without the cells that are empty."""
    with path.open(newline="") as file:
        return [
            {name: float(cell) for name, cell in cells.items() if cell}
            for cells in csv.DictReader(file)
        ]


class EventWriter:
    """TensorBoard's event file: the metrics by environment steps, and steps per second.

    The format is a TFRecord file of `Event` protocol buffers (TensorFlow's `event.proto`),
    written directly: TensorFlow's own summary functions need the tensorboard package.
    """

    def __init__(self, folder: Path) -> None:
        """Create a file; a resumed run has one for each start."""
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = tf.io.TFRecordWriter(str(folder / name))
        self._write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._before: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, progress: Progress) -> None:
        """Add the metrics of an update."""
        now, steps = time.time(), progress.env_steps
        if self._before is None:
            # Makes TensorBoard discard what a killed run wrote after its last checkpoint.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._write(tf.compat.v1.Event(wall_time=now, step=steps, session_log=start))
        metrics = {name: value for name, value in row(progress).items() if name not in COLUMNS[:2]}
        if self._before is not None and now > self._before[0]:  # a clock can stand still
            metrics["env_steps_per_second"] = (steps - self._before[1]) / (now - self._before[0])
        self._before = now, steps
        values = [
            tf.compat.v1.Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
        ]
        summary = tf.compat.v1.Summary(value=values)
        self._write(tf.compat.v1.Event(wall_time=now, step=steps, summary=summary))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
