"""The service's settings: each has one name, default and help, stated here once."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


def _setting(default: Any, kind: click.ParamType[Any], text: str) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text})


class ModelName(click.ParamType[str]):
    """A name that is one folder's, and cannot lead out of the models folder."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Accept letters, digits, `.`, `_` and `-`, and no dot at the start."""
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", value):
            self.fail(f"{value!r} is not a name of letters, digits, '.', '_' and '-'", param, ctx)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set, by command line or by `SERVING_<NAME>`."""

    models: Path = _setting(
        Path("models"),
        click.Path(exists=True, file_okay=False, path_type=Path),
        "Folder that holds <name>/<version>/.",
    )
    name: str = _setting("cartpole", ModelName(), "Name of the default model.")
    pin: int | None = _setting(
        None, click.IntRange(0), "Serve this version of that model, whatever `promote` chose."
    )
    host: str = _setting("127.0.0.1", click.STRING, "Address to listen on.")
    port: int = _setting(8000, click.IntRange(0, 65535), "Port to listen on; 0 takes a free one.")
    workers: int = _setting(2, click.IntRange(1), "Worker processes.")
    threads: int = _setting(
        8, click.IntRange(1), "Threads of each worker; they handle its large requests."
    )
    max_body_bytes: int = _setting(
        16 * 1024 * 1024, click.IntRange(1), "Largest request body that is read."
    )
    max_rows: int = _setting(65_536, click.IntRange(1), "Most observations in one request.")
    min_return: float | None = _setting(
        None,
        click.FLOAT,
        "Least mean return, greedy and sampled, that a policy's card must show to be served.",
    )
    max_requests_in_hand: int = _setting(
        64, click.IntRange(1), "Most requests that a worker has in hand; others are told 503."
    )
    request_timeout: float = _setting(
        30.0,
        click.FloatRange(min=0, min_open=True),
        "Seconds until a request is answered 504 and its worker replaced.",
    )
    client_timeout: float = _setting(
        10.0,
        click.FloatRange(min=0, min_open=True),
        "Seconds that a client has to send a request, and to take its answer.",
    )
    api_keys_file: Path | None = _setting(
        None,
        click.Path(exists=True, dir_okay=False, path_type=Path),
        "File of API keys, one a line; SERVING_API_KEYS may hold some, with commas between.",
    )
    log_format: str = _setting(
        "auto",
        click.Choice(["auto", "json", "text"]),
        "How to log; auto is text on a terminal, else JSON.",
    )
    log_requests: str = _setting(
        "errors", click.Choice(["errors", "all"]), "Which requests to log."
    )
    poll_seconds: float = _setting(
        1.0, click.FloatRange(min=0, min_open=True), "How often to look for new versions."
    )


def settings_options(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator that adds settings as options, all where none is named, to a command."""

    def add(command: Callable[P, R]) -> Callable[P, R]:
        for setting in reversed(fields(Settings)):
            if names and setting.name not in names:
                continue
            command = click.option(
                f"--{setting.name.replace('_', '-')}",
                envvar=f"SERVING_{setting.name.upper()}",
                show_envvar=True,
                default=setting.default,
                type=setting.metadata["kind"],
                help=setting.metadata["help"],
            )(command)
        return command

    return add
