"""Shared by the benchmarks: the peers' virtual environments, ports, and formatting of results."""

import csv
import dataclasses
import socket
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def peer_python(name: str, *, whole_lock: bool = True) -> Path:
    """Python of `benchmarks/.venv-<name>`, which is created if missing or out of date.

    Args:
        name: of the environment; `requirements/bench-<name>.txt` is its lock file.
        whole_lock: false if the lock file omits packages, which the `.in` file then pins.

    Raises:
        subprocess.CalledProcessError: pip failed; its output says why.
    """
    folder = ROOT / "benchmarks" / f".venv-{name}"
    python, installed = folder / "bin" / "python", folder / "installed"
    lock = ROOT / "requirements" / f"bench-{name}.txt"
    requirements = lock.with_suffix(".in")
    wanted = lock.read_text() + requirements.read_text()
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
        commands = [[*install, "--require-hashes", "--no-deps", "-r", lock]]
        if not whole_lock:
            commands.append([*install, "-r", requirements])
        for command in commands:
            subprocess.run(command, check=True, stdout=sys.stderr)
        installed.write_text(wanted)
    return python


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def median_and_range(values: Iterable[float | None], digits: int) -> str:
    """`median (min..max)` of the values that are not None."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    median = statistics.median(known)
    return f"{median:,.{digits}f} ({min(known):,.{digits}f}..{max(known):,.{digits}f})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of text in columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def write_csv(records: Sequence[Any], path: Path) -> None:
    """One row per record; all records have the same dataclass."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(records[0]))
        writer.writerows(map(dataclasses.astuple, records))
