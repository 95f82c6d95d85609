"""The service's settings: each has one name, default and help, stated here once."""

import math
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import click
from click.decorators import FC

Network = IPv4Network | IPv6Network


def _setting(
    default: Any, kind: click.ParamType[Any], text: str, aliases: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "aliases": aliases})


class Pattern(click.ParamType[str]):
    """Text that a regular expression matches."""

    def __init__(self, name: str, pattern: str, text: str) -> None:
        self.name, self.pattern, self.text = name, pattern, text

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what does not match as a whole."""
        if not re.fullmatch(self.pattern, value):
            self.fail(f"{value!r} is not {self.text}", param, ctx)
        return value


# The name of one folder: it cannot lead outside the models folder.
MODEL_NAME = Pattern(
    "name", r"[A-Za-z0-9_-][A-Za-z0-9._-]*", "a name of letters, digits, '.', '_' and '-'"
)


class Networks(click.ParamType[tuple[Network, ...]]):
    """IP addresses and networks, separated by commas."""

    name = "networks"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Network, ...]:
        """Refuse anything else, and networks with host bits set."""
        try:
            return tuple(ip_network(part.strip()) for part in value.split(","))
        except ValueError as error:
            self.fail(str(error), param, ctx)


URL = Pattern("text", r"(?s)https?://[^/].*", "like http://127.0.0.1:8000")
SOURCE = Pattern(
    "url", r"(s3|gs|az|https?)://[^/@][^@]*", "like s3://bucket/models, without credentials"
)
ROOT_PATH = Pattern("path", r"(/[A-Za-z0-9._~-]+)+", "a path like /policy")
ORIGIN = Pattern("origin", r"\*|https?://[A-Za-z0-9._:\[\]-]+", "like https://example.org, or *")
# An empty host would mean every address of the machine.
HOST = Pattern("host", r"[A-Za-z0-9._:%-]+", "a host name or an IP address")
# More than a day is a mistake, and system calls refuse much more.
SECONDS = click.FloatRange(min=0, min_open=True, max=86_400)


class Option(click.Option):
    """An option whose help shows only its first name and variable, not the aliases."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe it without its aliases."""
        shown = copy(self)
        shown.opts, shown.envvar = self.opts[:1], (self.envvar or [])[:1]
        return click.Option.get_help_record(shown, ctx)


def finite(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """Refuse nan, which passes every range check, and infinity; a callback for float options."""
    if isinstance(value, float) and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set, by command line or by `SERVING_<NAME>`."""

    models: Path = _setting(
        Path("models"),
        click.Path(exists=True, file_okay=False, path_type=Path),
        "Folder that holds <name>/<version>/.",
    )
    name: str = _setting(
        "cartpole", MODEL_NAME, "Name of the model; for the service, its default one."
    )
    pin: int | None = _setting(
        None, click.IntRange(0), "Serve this version of the default model, regardless of `promote`."
    )
    host: str = _setting("127.0.0.1", HOST, "Address that the service listens on.")
    port: int = _setting(
        8000, click.IntRange(0, 65535), "Port that the service listens on; 0 picks a free one."
    )
    grpc_port: int | None = _setting(
        None,
        click.IntRange(0, 65535),
        "Port for gRPC, on the same address; 0 picks a free one, which is logged.",
    )
    workers: int = _setting(2, click.IntRange(1, 1024), "Worker processes.")
    threads: int = _setting(8, click.IntRange(1, 1024), "Threads per worker, for large requests.")
    max_body_bytes: int = _setting(
        16 * 1024 * 1024, click.IntRange(1), "Largest request body that is accepted."
    )
    max_rows: int = _setting(
        65_536, click.IntRange(1), "Maximum number of observations (rows) per request."
    )
    min_return: float | None = _setting(
        None,
        click.FLOAT,
        "Minimum mean return, greedy and sampled, on a policy's card for it to be served.",
    )
    trusted_keys: Path | None = _setting(
        None,
        click.Path(exists=True, file_okay=False, path_type=Path),
        "Folder of public keys, *.pem; only versions that one of them has signed are served.",
    )
    max_in_flight: int = _setting(
        64,
        click.IntRange(1),
        "Maximum number of large requests in flight per worker; more get 503.",
        aliases=("max_requests_in_hand",),
    )
    request_timeout: float = _setting(
        30.0, SECONDS, "Seconds after which a request is answered with 504 and its worker replaced."
    )
    client_timeout: float = _setting(
        10.0, SECONDS, "Seconds that a client has to send a request, and again to read its answer."
    )
    api_keys_file: Path | None = _setting(
        None,
        click.Path(exists=True, dir_okay=False, path_type=Path),
        "File of API keys, one per line; SERVING_API_KEYS may add some, separated by commas.",
    )
    root_path: str | None = _setting(
        None, ROOT_PATH, "Path under which a proxy exposes the service, if it passes that path on."
    )
    trusted_proxies: tuple[Network, ...] | None = _setting(
        None,
        Networks(),
        "Addresses and networks of proxies whose X-Forwarded-For is trusted, for the log.",
    )
    cors_origin: str | None = _setting(
        None, ORIGIN, "Origin whose pages may use the service from a browser; * for any."
    )
    log_format: str = _setting(
        "auto",
        click.Choice(["auto", "json", "text"]),
        "How to log; auto is text on a terminal, else JSON.",
    )
    log_requests: str = _setting(
        "errors", click.Choice(["errors", "all"]), "Which requests to log."
    )
    decision_log: Path | None = _setting(
        None,
        click.Path(file_okay=False, path_type=Path),
        "Folder in which every decision is recorded; without it, none is.",
    )
    decision_log_sample: float = _setting(
        1.0,
        click.FloatRange(0, 1, min_open=True),
        "Share of the episodes, and of the requests without one, that are recorded.",
    )
    decision_log_rows: bool = _setting(
        True,
        click.BOOL,
        "Record the observations, without which a decision cannot be replayed.",
    )
    decision_log_bytes: int = _setting(
        1024**3,
        click.IntRange(1024**2),
        "Maximum size of the decision log in bytes; its oldest files are deleted first.",
    )
    decision_log_days: float = _setting(
        30.0,
        click.FloatRange(min=0, min_open=True, max=36_500),
        "Days after which a file of the decision log is deleted.",
    )
    decision_log_key: Path | None = _setting(
        None,
        click.Path(exists=True, dir_okay=False, path_type=Path),
        "Private key, as of `actor-critic-train sign`, that signs the decision log's files.",
    )
    poll_seconds: float = _setting(1.0, SECONDS, "Seconds between checks for new versions.")


def settings_options(*names: str) -> Callable[[FC], FC]:
    """Make a decorator that adds settings, all if none is named, to a command as options."""

    def add(command: FC) -> FC:
        for setting in reversed(fields(Settings)):
            if names and setting.name not in names:
                continue
            known = (setting.name, *setting.metadata["aliases"])
            command = click.option(
                *(f"--{name.replace('_', '-')}" for name in known),
                setting.name,
                cls=Option,
                envvar=[f"SERVING_{name.upper()}" for name in known],
                show_envvar=True,
                callback=finite,
                default=setting.default,
                type=setting.metadata["kind"],
                help=setting.metadata["help"],
            )(command)
        return command

    return add
