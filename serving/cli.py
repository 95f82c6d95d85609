"""The command line of the service and its demo player; user errors are reported in one line."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import serving
from serving.compare_command import compare
from serving.record_commands import prepare_log, replay
from serving.score_command import score
from serving.settings import URL, Settings, finite, settings_options
from serving.version_commands import promote, pull, require_keys, rollback, verify


@click.group(
    no_args_is_help=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(serving.__version__, prog_name="actor-critic", message="%(prog)s %(version)s")
def commands() -> None:
    """Serve exported policies over HTTP, and play with them."""


for command in (verify, promote, rollback, pull, replay, compare, score):
    commands.add_command(command)


def main() -> None:
    """Run the command line and exit with its status; 130 after Ctrl-C, 143 after SIGTERM."""
    # Exit by an exception, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(commands.main(standalone_mode=False))
    except click.ClickException as mistake:
        # Not click's own output: its usage lines would bury the error.
        click.echo(f"Error: {mistake.format_message()}", err=True)
        sys.exit(mistake.exit_code)
    except click.Abort:
        sys.exit(130)


def _require_grpc() -> None:
    """Check that gRPC's packages are installed, without importing them before the fork.

    Raises:
        click.UsageError: one is missing; names the first.
    """
    from importlib.util import find_spec

    for package in ("grpc", "grpc_health", "grpc_reflection", "packaging", "rapidjson"):
        if find_spec(package) is None:
            raise click.UsageError(f"{package} is not installed: install actor-critic[grpc]")
    for package, name in (
        ("tritonclient", "tritonclient"),
        ("tensorflow_serving", "tensorflow-serving-api"),
    ):
        if find_spec(package) is None:
            raise click.UsageError(
                f"{name} is not installed, whose messages gRPC has: pip install --no-deps {name}"
            )


def _listen(take: Callable[[str, int], socket.socket], host: str, port: int) -> socket.socket:
    """Call `take`, which is `bind` or `reserve`; its OSError becomes a `click.UsageError`."""
    try:
        return take(host, port)
    except OSError as error:
        raise click.UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error


@commands.command()
@settings_options()
def run(**options: Any) -> None:
    """Answer POST /act with the newest version of a model.

    Its only line on standard output is the address that it listens on.
    """
    settings = Settings(**options)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until gunicorn sets its own
    # Mistakes are reported before TensorFlow is imported, which takes seconds.
    require_keys(settings.trusted_keys)
    import logging

    # gunicorn would obey these, even if they were set for another service or by systemd.
    for name in ("WEB_CONCURRENCY", "GUNICORN_PID", "GUNICORN_FD", "LISTEN_PID", "LISTEN_FDS"):
        os.environ.pop(name, None)
    from serving.api.keys import KeysError, read_keys
    from serving.logs import set_up_logs
    from serving.server.master import Server, address, bind, reserve

    try:
        keys = read_keys(settings.api_keys_file)
    except KeysError as error:
        raise click.UsageError(str(error)) from error
    sign = prepare_log(settings)
    listener = _listen(bind, settings.host, settings.port)
    reserved = None
    if settings.grpc_port is not None:
        if settings.grpc_port == listener.getsockname()[1]:
            raise click.UsageError(f"--port and --grpc-port are both {settings.grpc_port}")
        _require_grpc()
        reserved = _listen(reserve, settings.host, settings.grpc_port)
    click.echo(f"http://{address(listener)}")
    set_up_logs(settings.log_format)
    shown = {name: str(value) for name, value in asdict(settings).items() if value is not None}
    logging.getLogger(__name__).info("settings %s; %d API keys", shown, len(keys))
    Server(settings, listener, reserved, keys, sign).run()


@commands.command()
@settings_options("host", "port")
def health(host: str, port: int) -> None:
    """Ask the service at this address whether it is ready.

    If it is not, the reason is printed and the exit status is 1.
    """
    from serving.healthcheck import report

    report(host, port)


@commands.command()
@click.option(
    "--url", required=True, type=URL, envvar="SERVING_URL", show_envvar=True, help="Of the service."
)
@click.option("--model", help="Name of the model.  [default: the default model of the service]")
@click.option("--episodes", type=click.IntRange(min=1), default=5)
@click.option("--deterministic", is_flag=True, help="Take the most probable actions.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="The same seed repeats a run."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=86_400),
    default=0.0,
    callback=finite,
    help="Seconds to wait until the service is ready.",
)
@click.option(
    "--render",
    type=click.Choice(["text"]),
    help="Show the steps on standard error: live on a terminal, as lines elsewhere.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="GIF to save the first episode in; needs pillow and what the environment draws with.",
)
@click.option(
    "--feedback", is_flag=True, help="Send the returns to the service, for its decision log."
)
@click.option(
    "--allow-module",
    "allowed",
    multiple=True,
    metavar="MODULE",
    help="Trust this Python module, and what it contains, where the policy card names it."
    " Can be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def play(**options: Any) -> None:
    """Play Gymnasium episodes in the environment of the served policy.

    An API key comes from the variable SERVING_API_KEY, else it is the first of SERVING_API_KEYS.

    Exit status: 0 all episodes were played; 2 wrong use; 69 no service answers; 75 it is busy or
    not ready yet; 77 it refuses the key; 1 it answers anything else.
    """
    # A recording needs no screen, and standard output is for the result.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from serving.demo.process import play

    play(**options)
