"""What recording decisions costs, and how fast a record is replayed.

    python -m benchmarks.recording --models models [--rounds 5] [--seconds 5]

Two services of two workers, one of which records every decision, are under full load in turn: wrk
keeps 16 and then 64 connections busy with requests of one row. Then all that was recorded is
replayed. The exit status is 1 if recording costs more than 10% of the requests at 16 connections
or 20% at 64, if a line was lost, or if fewer than 3 million decisions a minute are replayed.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import urllib3

from benchmarks.common import ROOT, median_and_range, table
from benchmarks.serving_load import full_load, json_body, require_wrk
from benchmarks.serving_services import Service, running

WORKERS = 2
MOST = {16: 0.10, 64: 0.20}  # of the requests that recording may cost, by connections
LEAST_REPLAYED = 3_000_000  # decisions a minute


def measure(services: dict[str, Service], connections: int, rounds: int, seconds: int) -> float:
    """Put the services under load in turn; print rates, return the share that recording costs."""
    speeds: dict[str, list[float]] = {name: [] for name in services}
    for _ in range(rounds):
        for name, service in services.items():
            load = full_load(service.url, json_body(1), connections=connections, seconds=seconds)
            speeds[name].append(load.requests / load.seconds)
    # Compare within a round: the machine may be busier in another round.
    pairs = zip(speeds["recorded"], speeds["not recorded"], strict=True)
    ratios = [recorded / plain for recorded, plain in pairs]
    rows = [["connections", *speeds, "ratio"]]
    shown = (median_and_range(of_one, 0) for of_one in speeds.values())
    rows.append([str(connections), *shown, median_and_range(ratios, 3)])
    click.echo(table(rows))
    return 1 - statistics.median(ratios)


@click.command(context_settings={"show_default": True})
@click.option("--models", type=click.Path(exists=True, path_type=Path), default="models")
@click.option("--rounds", type=click.IntRange(min=1), default=5)
@click.option("--seconds", type=click.IntRange(min=1), default=5, help="Of each measurement.")
def main(models: Path, rounds: int, seconds: int) -> None:
    """Measure both services, then replay."""
    require_wrk()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        how = ("--decision-log", folder, "--decision-log-bytes", str(2**34))
        with (
            running("ours", models, WORKERS) as plain,
            running("ours", models, WORKERS, *how) as recording,
        ):
            services = {"not recorded": plain, "recorded": recording}
            for service in services.values():
                service.wait_until_ready(json_body(1), WORKERS)
            for connections, most in MOST.items():
                cost = measure(services, connections, rounds, seconds)
                if cost > most:
                    faults.append(f"{cost:.1%} of the requests at {connections} connections")
            text = urllib3.request("GET", f"{recording.url}/metrics").data.decode()
            if "policy_decision_log_lost_total 0.0" not in text:
                faults.append("lines were lost")
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        command = ("-m", "serving", "replay", folder, "--models", str(models), "--json")
        started = time.perf_counter()
        replayed = subprocess.run(
            [sys.executable, *command], cwd=ROOT, check=True, capture_output=True
        )
        took = time.perf_counter() - started
    decisions = json.loads(replayed.stdout)["exact"]
    speed = 60 * decisions / took
    click.echo(
        f"\n{decisions:,} decisions of {size / decisions:.0f} bytes replayed, and the program "
        f"started, in {took:.1f} s: {speed:,.0f} a minute"
    )
    if speed < LEAST_REPLAYED:
        faults.append(f"{speed:,.0f} decisions replayed a minute")
    if faults:
        sys.exit(f"too much: {'; '.join(faults)}")


if __name__ == "__main__":
    main()
