"""The demo player as a process: its key from the environment, its output, its exit status."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from serving.client import PolicyClient, ServiceError
from serving.demo import environment, player, rendering

# What it reports about an episode, as JSON and as a row of its table.
RESULT = ("episode", "episode_return", "steps", "mean_latency_ms")
RESULT_LINE = "{episode:7}  {episode_return:8.1f}  {mean_latency_ms:9.2f} ms"
# By HTTP status, as numbers of BSD's sysexits.h; 502 comes from a proxy that finds no service.
EXIT_STATUS = {
    None: os.EX_UNAVAILABLE,  # no answer at all
    401: os.EX_NOPERM,
    403: os.EX_NOPERM,
    429: os.EX_TEMPFAIL,
    502: os.EX_UNAVAILABLE,
    503: os.EX_TEMPFAIL,
    504: os.EX_TEMPFAIL,
}


def _connect(url: str) -> PolicyClient:
    """Make a client with the key in SERVING_API_KEY, or else the first in SERVING_API_KEYS, if any.

    Raises:
        click.UsageError: the key is invalid.
    """
    # A key may be followed by its name and rights.
    first, *_ = [*os.environ.get("SERVING_API_KEYS", "").partition(",")[0].split(), None]
    try:
        return PolicyClient(url, api_key=os.environ.get("SERVING_API_KEY") or first)
    except ServiceError as error:
        raise click.UsageError(str(error)) from error


def play(
    *,
    url: str,
    model: str | None,
    episodes: int,
    deterministic: bool,
    seed: int,
    wait: float,
    render: str | None,
    record: Path | None,
    feedback: bool,
    allowed: Sequence[str],
    as_json: bool,
) -> None:
    """Play episodes in the environment of the served policy, and print their results.

    The arguments are the options of the command `play`. A service error ends the process.

    Raises:
        click.UsageError: the key is invalid, or the environment cannot be played or shown.
    """
    client = _connect(url)
    rows = []
    try:
        client.wait_until_ready(wait)
        card = client.policy_card(model)
        with client, environment.make(card, allowed, rendered=record is not None) as made:
            out = sys.stderr if render == "text" else None
            watchers = rendering.watchers(made, out=out, record=record)
            if not as_json:
                click.echo("episode    return  mean latency")
            for moment in player.play(
                client,
                made,
                model=model,
                episodes=episodes,
                deterministic=deterministic,
                seed=seed,
                feedback=feedback,
            ):
                try:
                    for watch in watchers:
                        watch(moment)
                finally:  # even if the recording cannot be saved
                    if moment.ended:
                        row = {name: getattr(moment, name) for name in RESULT}
                        rows.append(row)
                        if not as_json:
                            click.echo(RESULT_LINE.format_map(row))
    except ServiceError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_STATUS.get(error.status, 1))
    except (rendering.RenderError, environment.UnplayableError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(msgspec.json.encode({"environment": made.id, "episodes": rows}))
