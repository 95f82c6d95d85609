"""Performance of `/act`, compared with a Flask app without a policy and with other servers.

    python benchmarks/serving_comparison.py [--rounds 5] [--seconds 5] [--connections 1,16,64]
                                 [--rows 1,64,1024,65536] [--contenders noop,ours,...]
                                 [--protocol json|binary] [--models DIR]
    python benchmarks/serving_comparison.py --tail
    python benchmarks/serving_comparison.py --workers
    python benchmarks/serving_comparison.py --start

Linux only; wrk generates the load (Debian: apt-get install wrk). The peers get a virtual
environment of their own on first use, and without --models a policy is trained into
benchmarks/results/models.

The contenders, each with two workers: `noop`, a plain Flask app under the service's gunicorn
settings that only decodes requests and encodes constant responses; `ours`; `fastapi` (under
uvicorn), `litserve` and `bentoml`, each with the same SavedModel. The peers give no warnings from
the policy card, and validate less of a request. Variables such as SERVING_THREADS configure `noop`
and `ours` alike. `--protocol binary` measures only `ours`, with binary tensors of the Open
Inference Protocol.

Each round starts every contender in turn (the even rounds in reverse order), measures every
combination of rows and connections (by default all but 65,536 rows over 64 connections), and stops
it. After a warm-up, wrk keeps its connections busy for --seconds, or longer if fewer requests than
connections were answered. A single failed request or error response ends the run. wrk corrects its
percentiles for coordinated omission. Requests per second of CPU time are the throughput of a core
that does nothing else. Memory is the proportional set size of all processes of a contender after
the load; other processes that map the same libraries, such as a second service of this project,
lower it.

`--tail` measures the throughput with wrk, then sends requests at half that rate; the time that a
request waits for an idle connection is included. `--workers` repeats the first table with one and
with two workers, and also compares the throughput per CPU second, because wrk uses part of the
cores. `--start` starts every contender with one, two and four workers: `listening` is when the
first connection is accepted, at which point our service has just imported TensorFlow; `ready` is
when every request is answered. These three use one row and 16 connections by default.

Results go to standard output, and as CSV (and a plot of the first table) to benchmarks/results.
"""

import contextlib
import dataclasses
import math
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

if __name__ == "__main__":  # sys.path[0] of a script is its folder, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import RESULTS, ROOT, write_csv
from benchmarks.serving_load import BODIES, Load, LoadError, full_load, paced_load, require_wrk
from benchmarks.serving_report import Cell, Measurement, Started, Tail, Turn, plot, report
from benchmarks.serving_services import LABELS, Service, Start, running

WORKERS = 2
START_WORKERS = (1, 2, 4)
WARM_UP_SECONDS = 1
MAX_SECONDS = 600
MAX_ROWS_IN_FLIGHT = 2**20  # by default: with more, a response of a peer takes minutes


@dataclasses.dataclass(frozen=True)
class Plan:
    """The contenders and cells to measure.

    Attributes:
        models: folder that holds `cartpole/<version>`.
        contenders: keys of LABELS.
        cells: combinations to measure, by growing size, because memory grows with it.
        rounds: number of rounds.
        seconds: of load, at least.
    """

    models: Path
    contenders: Sequence[str]
    cells: Sequence[Cell]
    rounds: int
    seconds: int

    def turns(self, workers: Sequence[int]) -> Iterator[Turn]:
        """Every contender with every number of workers, round by round."""
        for number in range(1, self.rounds + 1):
            turns = [
                Turn(round=number, contender=contender, workers=count)
                for contender in self.contenders
                for count in workers
            ]
            # A drift of the machine's speed then favours no contender.
            yield from turns if number % 2 else reversed(turns)


@contextlib.contextmanager
def ready(plan: Plan, turn: Turn) -> Iterator[tuple[Service, Start]]:
    """Run a contender until it is ready; errors name it."""
    one_row = BODIES[plan.cells[0].protocol](1)
    try:
        with running(turn.contender, plan.models, turn.workers) as service:
            start = service.wait_until_ready(one_row, turn.workers)
            service.wait_until_idle()  # another worker may still be loading its policy
            yield service, start
    except LoadError as error:
        raise LoadError(f"{LABELS[turn.contender]}: {error}") from error


def load_fully(service: Service, cell: Cell, workers: int, seconds: int) -> tuple[Load, float]:
    """Warm up and measure, for longer if too few requests are answered.

    Returns:
        wrk's measurements, and the CPU seconds that the service used.

    Raises:
        LoadError: see `full_load`; the message names the cell.
    """
    body = BODIES[cell.protocol](cell.rows)

    def load(seconds: int) -> tuple[Load, float]:
        before = service.cpu_seconds()
        seen = full_load(service.url, body, connections=cell.connections, seconds=seconds)
        cpu_seconds = service.cpu_seconds() - before
        service.wait_until_idle()  # wrk leaves requests in flight
        return seen, cpu_seconds

    try:
        answer_seconds = max(service.check(body, cell.rows) for _ in range(3))
        every_connection = answer_seconds * math.ceil(cell.connections / workers)
        if every_connection < WARM_UP_SECONDS:
            load(WARM_UP_SECONDS)
        seconds = max(seconds, math.ceil(2 * every_connection))
        seen, cpu_seconds = load(seconds)
        while seen.requests < cell.connections:
            seconds *= 2
            if seconds > MAX_SECONDS:
                raise LoadError(f"{seen.requests} requests answered in {seen.seconds:.0f} s")
            seen, cpu_seconds = load(seconds)
    except LoadError as error:
        raise LoadError(f"{cell.text()}: {error}") from error
    return seen, cpu_seconds


def measure(plan: Plan, workers: Sequence[int], records: list[Measurement]) -> None:
    """Measure full load in every cell; like the next two, appends to `records` as it goes."""
    for turn in plan.turns(workers):
        with ready(plan, turn) as (service, _):
            for cell in plan.cells:
                load, cpu_seconds = load_fully(service, cell, turn.workers, plan.seconds)
                rate = load.requests / load.seconds
                record = Measurement(
                    **dataclasses.asdict(cell),
                    **dataclasses.asdict(turn),
                    requests_per_second=rate,
                    rows_per_second=rate * cell.rows,
                    p50_ms=load.p50_ms,
                    p99_ms=load.p99_ms,
                    requests_per_cpu_second=load.requests / cpu_seconds,
                    pss_mb=service.pss_mb(),
                )
                records.append(record)
                log_progress(turn, f"{cell.text()}: {rate:,.1f} requests/s")


def measure_tails(plan: Plan, records: list[Tail]) -> None:
    """Measure latency at a constant rate of half the throughput."""
    for turn in plan.turns([WORKERS]):
        with ready(plan, turn) as (service, _):
            for cell in plan.cells:
                load, _ = load_fully(service, cell, turn.workers, plan.seconds)
                half = load.requests / load.seconds / 2
                paced = paced_load(
                    service.url,
                    BODIES[cell.protocol](cell.rows),
                    rate=half,
                    seconds=plan.seconds,
                    connections=cell.connections,
                )
                record = Tail(
                    **dataclasses.asdict(cell),
                    **dataclasses.asdict(turn),
                    requests_per_second=half,
                    **paced._asdict(),
                    ratio=paced.p99_ms / paced.p50_ms,
                )
                records.append(record)
                log_progress(
                    turn, f"{cell.text()}, {half:,.1f} requests/s: p99 {record.ratio:.1f} p50"
                )


def measure_starts(plan: Plan, records: list[Started]) -> None:
    """Measure start-up times and memory with several numbers of workers."""
    for turn in plan.turns(START_WORKERS):
        with ready(plan, turn) as (service, start):
            load_fully(service, plan.cells[0], turn.workers, plan.seconds)
            records.append(
                Started(**dataclasses.asdict(turn), **start._asdict(), pss_mb=service.pss_mb())
            )
            log_progress(turn, f"ready after {start.ready_seconds:.2f} s")


def log_progress(turn: Turn, text: str) -> None:
    """Print progress on standard error."""
    workers = f"{turn.workers} worker" + "s" * (turn.workers > 1)
    click.echo(f"round {turn.round}  {LABELS[turn.contender]}, {workers}, {text}", err=True)


def trained_models() -> Path:
    """A models folder with a policy, which is trained on first use in a few seconds."""
    models = RESULTS / "models"
    if not (models / "cartpole").exists():
        with tempfile.TemporaryDirectory() as run:
            command = [sys.executable, "-m", "training", "train"]
            folders = ["--models", str(models), "--run-dir", f"{run}/run"]
            subprocess.run([*command, *folders], cwd=ROOT, check=True, stdout=sys.stderr)
    return models


def numbers(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> list[int] | None:
    """Parse integers like `1,16,64`; returns them sorted."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise click.BadParameter(f"{text!r} is not like 1,16,64")
    return sorted(map(int, text.split(",")))


def names(context: click.Context, _parameter: click.Parameter, text: str | None) -> list[str]:
    """Parse contenders like `noop,ours`."""
    available = ["ours"] if context.params["protocol"] == "binary" else list(LABELS)
    if text is None:
        return available
    selected = text.split(",")
    for name in selected:
        if name not in available:
            raise click.BadParameter(f"{name!r} is none of {', '.join(available)}")
    return selected


@click.command(context_settings={"show_default": True})
@click.option("--tail", "mode", flag_value="tail", help="p99 at half of the throughput.")
@click.option(
    "--workers", "mode", flag_value="workers", help="Throughput with one and with two workers."
)
@click.option("--start", "mode", flag_value="start", help="Start-up time, memory per worker.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Number of rounds.")
@click.option("--seconds", type=click.IntRange(1), default=5, help="Seconds of load, at least.")
@click.option(
    "--connections", callback=numbers, help="Concurrent connections.  [default: see above]"
)
@click.option("--rows", callback=numbers, help="Rows per request.  [default: see above]")
@click.option(
    "--protocol",
    type=click.Choice(list(BODIES)),
    default="json",
    is_eager=True,
    help="Body format.",
)
@click.option("--contenders", callback=names, help="Contenders to measure.  [default: all]")
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that holds cartpole/<version>.  [default: a policy is trained]",
)
def main(
    mode: str | None,
    rounds: int,
    seconds: int,
    connections: list[int] | None,
    rows: list[int] | None,
    contenders: list[str],
    protocol: str,
    models: Path | None,
) -> None:
    """Measure POST /act of this service and of others; writes benchmarks/results/serving*.

    The defaults are 1, 16 and 64 connections with 1, 64, 1,024 and 65,536 rows each, except for the
    largest combination; with --tail, --workers and --start, 16 connections with one row.
    """
    # Like Ctrl-C, raise an exception, so that all started processes are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    RESULTS.mkdir(exist_ok=True)
    records: list[Any] = []
    kinds = [kind for kind in (mode, protocol) if kind not in (None, "json")]
    path = RESULTS / ("-".join(["serving", *kinds]) + ".csv")
    try:
        require_wrk()
        plan = Plan(
            models=models or trained_models(),
            contenders=contenders,
            cells=[
                Cell(protocol=protocol, connections=count, rows=size)
                for size in rows or ((1, 64, 1_024, 65_536) if mode is None else (1,))
                for count in connections or ((1, 16, 64) if mode is None else (16,))
                if (rows and connections) or size * count <= MAX_ROWS_IN_FLIGHT
            ],
            rounds=rounds,
            seconds=seconds,
        )
        if mode == "tail":
            measure_tails(plan, records)
        elif mode == "start":
            measure_starts(plan, records)
        else:
            measure(plan, (1, 2) if mode == "workers" else (WORKERS,), records)
    except LoadError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if records:
            write_csv(records, path)
    click.echo(report(mode, records, contenders))
    if mode is None:
        plot(records, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
