"""How fast `/act` answers, compared with a Flask app that decides nothing and with other servers.

    python benchmarks/serving_comparison.py [--rounds 5] [--seconds 5] [--connections 1,16,64]
                                 [--rows 1,64,1024,65536] [--contenders noop,ours,...]
                                 [--protocol act,predict,infer,binary] [--models DIR]
    python benchmarks/serving_comparison.py --tail
    python benchmarks/serving_comparison.py --workers
    python benchmarks/serving_comparison.py --start

Linux only; wrk makes the load (Debian: apt-get install wrk). The peers get a virtual environment
of their own on first use, and without --models a policy is trained into benchmarks/results/models.

The contenders, each with two workers: `noop`, a plain Flask app under gunicorn's own threaded
worker with `reuse_port` that decodes, encodes and decides nothing; `ours`; `fastapi` (under
uvicorn), `litserve` and `bentoml`, each with the same SavedModel. The peers draw no warnings from
the policy card, and check less of a request. Variables such as SERVING_THREADS set up `noop` and
`ours` alike. Three more take part if variables say where they are: `before`, the service of another
checkout (BEFORE_CHECKOUT); `bun` (BUN, the program, and BUN_SERVER, a script that listens on PORT);
`triton` (TRITON_SITE, the site-packages of pytriton, and TRITON_MODELS, its model repository).

`--protocol` uses `POST /act`, TensorFlow Serving's `:predict` or the Open Inference Protocol's
`infer` in JSON or with binary tensors; with several, each is also compared with `act`. `ours` and
`before` speak all of them, `triton` only `infer` and `binary`, the others only `act`. Examples:

    ... --protocol act,predict,infer,binary --contenders ours --rows 1 --connections 16,64
    ... --protocol infer,binary --contenders ours,triton --rows 1 --connections 16
    BEFORE_CHECKOUT=../before ... --contenders ours,before --rows 1 --connections 16,64
    ... --contenders ours,noop,bun --rows 1 --connections 1,64

The procedure: each round starts every contender in turn, even rounds in reverse order, measures
every combination of rows and connections (if none are given, all but 65,536 rows over 64
connections), and stops it. A combination is warmed up first. wrk then keeps its connections busy
for --seconds, longer if fewer requests than connections were answered. A single request that fails
or is answered with an error ends the run. wrk corrects its percentiles for requests that a slow
answer kept it from sending. Requests per second of processor time are what a core could do that had
nothing else to do. Memory is the proportional set size of a contender's processes after the load;
another process that maps the same libraries, such as a second service of this project, lowers it.

`--tail` measures the throughput with wrk, then sends half of it at a constant rate; the time that a
request waits for an idle connection counts. `--workers` repeats the first table with one worker and
with two, and also compares requests per second of processor time, as wrk takes some of the cores.
`--start` starts every contender with one, two and four workers: `listening` is when it accepts the
first connection (our service has just imported TensorFlow then); `ready` is when every request is
answered. By default, these three send one row over 16 connections.

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
from benchmarks.serving_services import LABELS, PROTOCOLS, Service, Start, missing, running

WORKERS = 2
START_WORKERS = (1, 2, 4)
WARM_UP_SECONDS = 1
MOST_SECONDS = 600
MOST_ROWS_AT_ONCE = 2**20  # by default: with more, an answer of a peer takes minutes


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        models: folder that holds `cartpole/<version>`.
        contenders: keys of LABELS.
        cells: what to measure of each, smallest first, because memory grows with size.
        rounds: how often.
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
            # Alternate the order, so that drift of the machine favours no contender.
            yield from turns if number % 2 else reversed(turns)


@contextlib.contextmanager
def ready(plan: Plan, turn: Turn) -> Iterator[tuple[Service, Start]]:
    """Run a contender until it is ready; errors carry its name."""
    one_row = BODIES[plan.cells[0].protocol](1)
    try:
        with running(turn.contender, plan.models, turn.workers) as service:
            start = service.wait_until_ready(one_row, turn.workers)
            service.wait_until_idle()  # another worker may still load its policy
            yield service, start
    except LoadError as error:
        raise LoadError(f"{LABELS[turn.contender]}: {error}") from error


def load_fully(service: Service, cell: Cell, workers: int, seconds: int) -> tuple[Load, float]:
    """Warm up and load, for longer if too few requests are answered.

    Returns:
        What wrk saw, and the processor seconds that the service took.

    Raises:
        LoadError: see `full_load`; the message names the cell.
    """
    body = BODIES[cell.protocol](cell.rows)

    def load(seconds: int) -> tuple[Load, float]:
        before = service.cpu_seconds()
        seen = full_load(service.url, body, connections=cell.connections, seconds=seconds)
        cpu_seconds = service.cpu_seconds() - before
        service.wait_until_idle()  # wrk leaves unanswered requests behind
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
            if seconds > MOST_SECONDS:
                raise LoadError(f"{seen.requests} requests answered in {seen.seconds:.0f} s")
            seen, cpu_seconds = load(seconds)
    except LoadError as error:
        raise LoadError(f"{cell.text()}: {error}") from error
    return seen, cpu_seconds


def measure(plan: Plan, workers: Sequence[int], records: list[Measurement]) -> None:
    """Full load in every cell; like the next two functions, appends to `records` as it goes."""
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
                tell(turn, f"{cell.text()}: {rate:,.1f} requests/s")


def measure_tails(plan: Plan, records: list[Tail]) -> None:
    """Half of the throughput, at a constant rate."""
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
                tell(turn, f"{cell.text()}, {half:,.1f} requests/s: p99 {record.ratio:.1f} p50")


def measure_starts(plan: Plan, records: list[Started]) -> None:
    """From the start of the first process, with several numbers of workers."""
    for turn in plan.turns(START_WORKERS):
        with ready(plan, turn) as (service, start):
            load_fully(service, plan.cells[0], turn.workers, plan.seconds)
            records.append(
                Started(**dataclasses.asdict(turn), **start._asdict(), pss_mb=service.pss_mb())
            )
            tell(turn, f"ready after {start.ready_seconds:.2f} s")


def tell(turn: Turn, text: str) -> None:
    """Progress, on standard error."""
    workers = f"{turn.workers} worker" + "s" * (turn.workers > 1)
    click.echo(f"round {turn.round}  {LABELS[turn.contender]}, {workers}, {text}", err=True)


def trained_models() -> Path:
    """A folder with a policy of our own training, which takes seconds and is done once."""
    models = RESULTS / "models"
    # An interrupted training leaves the folder without a version.
    if not any(models.glob("cartpole/[0-9]*/saved_model.pb")):
        with tempfile.TemporaryDirectory() as run:
            command = [sys.executable, "-m", "training", "train"]
            folders = ["--models", str(models), "--run-dir", f"{run}/run"]
            subprocess.run([*command, *folders], cwd=ROOT, check=True, stdout=sys.stderr)
    return models


def numbers(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> list[int] | None:
    """The whole numbers of a list like `1,16,64`, in growing order."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise click.BadParameter(f"{text!r} is not like 1,16,64")
    return sorted(map(int, text.split(",")))


def chosen(text: str, able: Sequence[str]) -> list[str]:
    """The names of a list like `noop,ours`.

    Raises:
        click.BadParameter: a name is unknown.
    """
    for name in text.split(","):
        if name not in able:
            raise click.BadParameter(f"{name!r} is none of {', '.join(able)}")
    return text.split(",")


def protocols_of(_context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    """The protocols of a list like `act,infer`."""
    return chosen(text, list(BODIES))


def names(context: click.Context, _parameter: click.Parameter, text: str | None) -> list[str]:
    """The contenders of a list like `noop,ours`, without those that no variable locates."""
    wanted = set(context.params["protocol"])
    able = [name for name in LABELS if wanted <= PROTOCOLS.get(name, {"act"})]
    found = []
    for name in able if text is None else chosen(text, able):
        if variable := missing(name):
            click.echo(f"without {LABELS[name]}: {variable} does not say where it is", err=True)
        else:
            found.append(name)
    if not found:
        raise click.UsageError("no contender is left")
    return found


@click.command(context_settings={"show_default": True})
@click.option("--tail", "mode", flag_value="tail", help="p99 at half of the throughput.")
@click.option("--workers", "mode", flag_value="workers", help="Throughput with one and with two.")
@click.option("--start", "mode", flag_value="start", help="Time to be ready, memory of a worker.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="How often.")
@click.option("--seconds", type=click.IntRange(1), default=5, help="Of load, at least.")
@click.option("--connections", callback=numbers, help="Kept busy.  [default: see above]")
@click.option("--rows", callback=numbers, help="Of a request.  [default: see above]")
@click.option(
    "--protocol", default="act", is_eager=True, callback=protocols_of, help="Of a body; or several."
)
@click.option("--contenders", callback=names, help="Who takes part.  [default: all who can]")
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that holds cartpole/<version>.  [default: one that is trained]",
)
def main(
    mode: str | None,
    rounds: int,
    seconds: int,
    connections: list[int] | None,
    rows: list[int] | None,
    contenders: list[str],
    protocol: list[str],
    models: Path | None,
) -> None:
    """Measure this service and others; writes benchmarks/results/serving*.

    Every combination of 1, 16 and 64 connections and of 1, 64, 1,024 and 65,536 rows, but the
    largest; of 16 connections and one row with --tail, --workers and --start.
    """
    # As Ctrl-C does: an exception, so that nothing that was started stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    RESULTS.mkdir(exist_ok=True)
    records: list[Any] = []
    kinds = [kind for kind in (mode, *protocol) if kind not in (None, "act")]
    path = RESULTS / ("-".join(["serving", *kinds]) + ".csv")
    try:
        require_wrk()
        plan = Plan(
            models=models or trained_models(),
            contenders=contenders,
            cells=[
                Cell(protocol=name, connections=count, rows=size)
                for size in rows or ((1, 64, 1_024, 65_536) if mode is None else (1,))
                for count in connections or ((1, 16, 64) if mode is None else (16,))
                for name in protocol
                if (rows and connections) or size * count <= MOST_ROWS_AT_ONCE
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
    finally:
        if records:
            write_csv(records, path)
    click.echo(report(mode, records, contenders))
    if mode is None and len(protocol) == 1:
        plot(records, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
