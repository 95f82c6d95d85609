"""What a shadow costs clients: latency at half load, alternately without and with it.

    python -m benchmarks.shadow_load --models models [--rounds 5] [--seconds 4]

The newest version of cartpole serves; in the second half of each round, a copy of it is its shadow.
Half load is half of wrk's throughput with as many connections, without a shadow. Each round has a
ratio of 99th percentiles; the exit status is 1 if the median ratio is above 1.1. Needs `wrk`.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import urllib3

from benchmarks.common import median_and_range, table
from benchmarks.serving_load import full_load, json_body, paced_load, require_wrk
from benchmarks.serving_services import newest_version, running

CONNECTIONS = 16
WORKERS = 2
MOST = 1.1  # p99 with a shadow, relative to without
SETTLE_SECONDS = 3.0  # in which every worker polls the models folder more than twice


@click.command(context_settings={"show_default": True})
@click.option("--models", type=click.Path(exists=True, path_type=Path), default="models")
@click.option("--rounds", type=click.IntRange(min=1), default=5)
@click.option("--seconds", type=click.IntRange(min=1), default=4, help="Of each measurement.")
def main(models: Path, rounds: int, seconds: int) -> None:
    """Print the latency without and with a shadow, and what the shadow compared."""
    require_wrk()
    body = json_body(1)
    with tempfile.TemporaryDirectory() as folder:
        copies = Path(folder, "models")
        for version in ("1", "2"):
            shutil.copytree(newest_version(models), copies / "cartpole" / version)
        selection = copies / "cartpole" / "serve.json"
        selection.write_text('{"serve": 1}')
        with running("ours", copies, WORKERS) as service:
            service.wait_until_ready(body, WORKERS)
            full = full_load(service.url, body, connections=CONNECTIONS, seconds=seconds)
            rate = full.requests / full.seconds / 2
            click.echo(f"half load: {rate:,.0f} requests/s over {CONNECTIONS} connections")
            latencies: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            for _ in range(rounds):
                for has_shadow in (False, True):
                    select(selection, has_shadow=has_shadow)
                    seen = paced_load(
                        service.url, body, rate=rate, seconds=seconds, connections=CONNECTIONS
                    )
                    latencies[has_shadow].append((seen.p50_ms, seen.p99_ms))
            compared = comparison(service.url)
    rows = [["", "p50 in ms", "p99 in ms"]]
    for has_shadow, seen_by_round in latencies.items():
        columns = zip(*seen_by_round, strict=True)
        name = "with a shadow" if has_shadow else "without"
        rows.append([name, *(median_and_range(column, 3) for column in columns)])
    click.echo(table(rows))
    pairs = zip(latencies[True], latencies[False], strict=True)
    ratio = statistics.median(one[1] / other[1] for one, other in pairs)
    click.echo(f"ratio of the p99: median {ratio:.3f}")
    click.echo(f"last round: {compared['decisions']} compared, {compared['skipped']} skipped")
    if ratio > MOST:
        sys.exit(f"a shadow makes the p99 more than {MOST} times as long")


def select(selection: Path, *, has_shadow: bool) -> None:
    """Turn the shadow on or off, and wait until every worker has noticed."""
    aside = selection.with_suffix(".aside")
    aside.write_text(json.dumps({"serve": 1} | ({"shadow": 2} if has_shadow else {})))
    aside.rename(selection)
    time.sleep(SETTLE_SECONDS)


def comparison(url: str) -> Any:
    """The service's comparison of the shadow."""
    return urllib3.request("GET", f"{url}/models/cartpole/comparison").json()


if __name__ == "__main__":
    main()
