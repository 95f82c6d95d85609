"""The demo player as a process: its key from the environment, what it prints, its exit status."""

import os
from collections.abc import Mapping

import click

from serving.client import PolicyClient, ServiceError

# What it reports of an episode, as JSON and as a row of its table.
RESULT = ("episode", "episode_return", "steps", "mean_latency_ms")
RESULT_LINE = "{episode:7}  {episode_return:8.1f}  {mean_latency_ms:9.2f} ms"
# By status of HTTP, in the numbers of BSD's sysexits.h; 502 is a proxy's, which finds no service.
EXIT_STATUS = {
    None: os.EX_UNAVAILABLE,  # no answer at all
    401: os.EX_NOPERM,
    403: os.EX_NOPERM,
    429: os.EX_TEMPFAIL,
    502: os.EX_UNAVAILABLE,
    503: os.EX_TEMPFAIL,
    504: os.EX_TEMPFAIL,
}


def exit_status(error: ServiceError) -> int:
    """What the service answered, as the exit status of the player."""
    return EXIT_STATUS.get(error.status, 1)


def connect(url: str, environ: Mapping[str, str]) -> PolicyClient:
    """Make a client with the key in SERVING_API_KEY, or else the first in SERVING_API_KEYS, if any.

    Raises:
        click.UsageError: the key is none.
    """
    # Behind a key may stand its name and rights.
    first, *_ = [*environ.get("SERVING_API_KEYS", "").partition(",")[0].split(), None]
    try:
        return PolicyClient(url, api_key=environ.get("SERVING_API_KEY") or first)
    except ServiceError as error:
        raise click.UsageError(str(error)) from error
