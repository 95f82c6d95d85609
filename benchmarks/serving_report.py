"""Results of `benchmarks/serving_comparison.py`: records, tables, ratios and a plot."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import median_and_range, table
from benchmarks.serving_services import LABELS


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of protocol, rows and connections, measured for every contender."""

    protocol: str
    rows: int  # per request
    connections: int

    def text(self) -> str:
        """The combination as text."""
        return f"{self.protocol}, {self.rows:,} rows, {self.connections} connections"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One run of a contender within a round."""

    round: int  # from 1
    contender: str  # a key of LABELS
    workers: int


@dataclass(frozen=True, kw_only=True)
class Measurement(Cell, Turn):
    """A measurement under full load."""

    requests_per_second: float
    rows_per_second: float
    p50_ms: float
    p99_ms: float
    requests_per_cpu_second: float  # of all processes of the contender
    pss_mb: float  # of all processes, 10**6 bytes


@dataclass(frozen=True, kw_only=True)
class Tail(Cell, Turn):
    """A measurement at a constant rate, half of the throughput measured just before."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float  # p99 / p50
    late_p99_ms: float  # delay of the client itself


@dataclass(frozen=True, kw_only=True)
class Started(Turn):
    """A measurement of a start; see `serving_services.Start`."""

    listening_seconds: float
    ready_seconds: float
    pss_mb: float  # of all processes, 10**6 bytes, after some load


Ratios = dict[tuple[str, int, int], list[float]]  # by cell, one per round

LOAD_COLUMNS = {
    "requests/s": ("requests_per_second", 1),
    "rows/s": ("rows_per_second", 0),
    "p50 ms": ("p50_ms", 2),
    "p99 ms": ("p99_ms", 2),
    "requests/CPU s": ("requests_per_cpu_second", 0),
    "PSS MB": ("pss_mb", 0),
}
TAIL_COLUMNS = {
    "requests/s": ("requests_per_second", 1),
    "p50 ms": ("p50_ms", 2),
    "p99 ms": ("p99_ms", 2),
    "p99 / p50": ("ratio", 1),
    "client late p99 ms": ("late_p99_ms", 2),
}


def report(mode: str | None, records: Sequence[Any], contenders: Sequence[str]) -> str:
    """The tables of a run.

    Args:
        mode: None, "workers", "tail" or "start".
        records: of the mode's class, in any order.
        contenders: keys of LABELS.
    """
    if mode == "start":
        return start_table(records)
    if mode == "tail":
        return load_table(records, TAIL_COLUMNS)
    compared = {}
    for name in contenders:
        if mode == "workers":
            sides = f"{LABELS[name]}, 2 workers / 1"
            compared[sides] = ratios(records, (name, 2), (name, 1))
            per_cpu = ratios(records, (name, 2), (name, 1), "requests_per_cpu_second")
            compared[f"{sides}, per CPU s"] = per_cpu
        elif name != "ours" and "ours" in contenders:
            compared[f"ours / {LABELS[name]}"] = ratios(records, ("ours", 2), (name, 2))
        protocols = {record.protocol for record in records}
        if mode is None and "act" in protocols and len(protocols) > 1:
            compared[f"{LABELS[name]} / by act"] = shares_of_act(records, (name, 2))
    tables = [load_table(records, LOAD_COLUMNS), *([ratio_table(compared)] if compared else [])]
    return "\n\n".join(tables)


def load_table(
    records: Sequence[Measurement] | Sequence[Tail], columns: dict[str, tuple[str, int]]
) -> str:
    """Median and range of every contender in every cell.

    Args:
        records: all of one class.
        columns: by heading, a field and its number of decimal places.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for record in records:
        key = (*cell_of(record), list(LABELS).index(record.contender), record.workers)
        groups.setdefault(key, []).append(record)
    heading = ["protocol", "rows", "connections", "median (min..max)", "workers"]
    rows = [[*heading, *columns]]
    for (protocol, size, connections, _, workers), own in sorted(groups.items()):
        rows.append(
            [
                *(protocol, f"{size:,}", str(connections)),
                *(LABELS[own[0].contender], str(workers)),
                *(
                    median_and_range((getattr(record, field) for record in own), digits)
                    for field, digits in columns.values()
                ),
            ]
        )
    return table(rows)


def cell_of(record: Cell) -> tuple[str, int, int]:
    """The cell of a record, as a key in the order of the tables."""
    return record.protocol, record.rows, record.connections


def ratios(
    records: Sequence[Measurement],
    ours: tuple[str, int],
    other: tuple[str, int],
    field: str = "requests_per_second",
) -> Ratios:
    """The ratio of `ours` to `other`, by cell.

    Args:
        records: of whole rounds, in any order.
        ours: contender and number of workers.
        other: the same.
        field: the field of the records to compare.
    """
    seen: dict[tuple[Any, ...], float] = {}
    for record in records:
        side = record.contender, record.workers
        seen[cell_of(record), record.round, side] = getattr(record, field)
    compared: Ratios = {}
    for cell, number, side in sorted(seen):
        if side == ours:
            ratio = seen[cell, number, ours] / seen[cell, number, other]
            compared.setdefault(cell, []).append(ratio)
    return compared


def shares_of_act(records: Sequence[Measurement], side: tuple[str, int]) -> Ratios:
    """What one side does by each other protocol, divided by what it does by `act`.

    Args:
        records: of whole rounds, in any order.
        side: contender and number of workers.
    """
    own = [record for record in records if (record.contender, record.workers) == side]
    seen = {(cell_of(record), record.round): record.requests_per_second for record in own}
    shares: Ratios = {}
    for (cell, number), rate in sorted(seen.items()):
        if cell[0] != "act":
            shares.setdefault(cell, []).append(rate / seen[("act", *cell[1:]), number])
    return shares


def ratio_table(named: dict[str, Ratios]) -> str:
    """The ratio of every round, and their median; the keys of `named` label the ratios."""
    rounds = max(len(values) for by_cell in named.values() for values in by_cell.values())
    numbers = [f"round {number}" for number in range(1, rounds + 1)]
    rows = [["protocol", "rows", "connections", "throughput", *numbers, "median"]]
    cells = sorted({cell for by_cell in named.values() for cell in by_cell})
    for protocol, size, connections in cells:
        for name, by_cell in named.items():
            values = by_cell.get((protocol, size, connections))
            if values is None:
                continue
            rows.append(
                [
                    *(protocol, f"{size:,}", str(connections), name),
                    *(f"{value:.2f}" for value in (*values, statistics.median(values))),
                ]
            )
    return table(rows)


def start_table(records: Sequence[Started]) -> str:
    """Median and range of every contender with every number of workers."""
    heading = [
        "listening s",
        "ready s",
        "ready - listening s",
        "PSS MB",
        "MB/additional worker",
    ]
    rows = [["median (min..max)", "workers", *heading]]
    alone = {(r.contender, r.round): r.pss_mb for r in records if r.workers == 1}
    sides = {(record.contender, record.workers) for record in records}
    for contender, workers in sorted(sides, key=lambda side: (list(LABELS).index(side[0]), side)):
        own = [r for r in records if (r.contender, r.workers) == (contender, workers)]
        further = [
            (r.pss_mb - alone[contender, r.round]) / (workers - 1) if workers > 1 else None
            for r in own
        ]
        rows.append(
            [
                *(LABELS[contender], str(workers)),
                median_and_range((r.listening_seconds for r in own), 2),
                median_and_range((r.ready_seconds for r in own), 2),
                median_and_range((r.ready_seconds - r.listening_seconds for r in own), 2),
                median_and_range((r.pss_mb for r in own), 0),
                median_and_range(further, 0),
            ]
        )
    return table(rows)


def plot(records: Sequence[Measurement], path: Path) -> None:
    """Throughput and p99 by rows per request: one point per round, a line through the medians."""
    from matplotlib.figure import Figure

    connections = sorted({record.connections for record in records})
    figure = Figure(figsize=(2 + 4 * len(connections), 8), layout="constrained")
    grid = figure.subplots(2, len(connections), sharex=True, sharey="row", squeeze=False)
    for row, field in zip(grid, ("rows_per_second", "p99_ms"), strict=True):
        for axes, count in zip(row, connections, strict=True):
            for color, (contender, label) in enumerate(LABELS.items()):
                if contender not in {record.contender for record in records}:
                    continue
                points: dict[int, list[float]] = {}
                for record in records:
                    if (record.contender, record.connections) == (contender, count):
                        points.setdefault(record.rows, []).append(getattr(record, field))
                medians = [statistics.median(points[size]) for size in sorted(points)]
                axes.plot(sorted(points), medians, color=f"C{color}", label=label)
                for size, values in points.items():
                    axes.scatter([size] * len(values), values, color=f"C{color}", s=12)
            axes.set(xscale="log", yscale="log", xlabel="rows per request")
            axes.set(ylabel=field.replace("_", " "), title=f"{count} connections")
            axes.grid(which="both", alpha=0.3)
    grid[0, 0].legend()
    figure.savefig(path, dpi=150)
