"""The command line of the service and its demo player; mistakes become one clear line."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import serving
from serving.compare_command import compare, log_option, require_better
from serving.record_commands import prepare_log, replay
from serving.settings import SECONDS, SOURCE, URL, Settings, finite, settings_options


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


commands.add_command(replay)
commands.add_command(compare)


def main() -> None:
    """Run the command line and exit with its status; 130 after Ctrl-C."""
    try:
        sys.exit(commands.main(standalone_mode=False))
    except click.ClickException as mistake:
        # Not click's own way to show it: its usage lines would bury the error.
        click.echo(f"Error: {mistake.format_message()}", err=True)
        sys.exit(mistake.exit_code)
    except click.Abort:
        sys.exit(130)


def _require_keys(folder: Path | None) -> None:
    """Read the trusted keys, where set, so that mistakes in them are reported at once."""
    if folder is None:
        return
    try:
        from serving.policy.signature import TrustedKeysError, read_trusted_keys
    except ModuleNotFoundError as error:
        raise click.UsageError(f"--trusted-keys needs actor-critic[sign]: {error}") from error
    try:
        read_trusted_keys(folder)
    except TrustedKeysError as error:
        raise click.UsageError(str(error)) from error


@commands.command()
@settings_options()
def run(**options: Any) -> None:
    """Answer POST /act with the newest version of a model.

    The address that it listens on is the one line on standard output.
    """
    settings = Settings(**options)
    # Mistakes are reported before TensorFlow is imported, which takes seconds.
    _require_keys(settings.trusted_keys)
    import logging

    from serving.api.keys import KeysError, read_keys
    from serving.logs import set_up_logs
    from serving.server.master import Server, bind

    try:
        keys = read_keys(settings.api_keys_file)
        sign = prepare_log(settings)
        listener = bind(settings.host, settings.port)
    except KeysError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        raise click.UsageError(f"cannot listen on {where}: {error.strerror}") from error
    host, port = listener.getsockname()[:2]
    click.echo(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    set_up_logs(settings.log_format)
    shown = {name: str(value) for name, value in asdict(settings).items() if value is not None}
    logging.getLogger(__name__).info("settings %s; %d API keys", shown, len(keys))
    Server(settings, listener, keys, sign).run()


@commands.command()
@settings_options("host", "port")
def health(host: str, port: int) -> None:
    """Ask the service at this address whether it is ready; exit status 1 and the reason if not."""
    from serving.healthcheck import report

    report(host, port)


@commands.command()
@click.argument(
    "model_dir", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
)
@settings_options("trusted_keys")
def verify(model_dir: Path, trusted_keys: Path | None) -> None:
    """Check a version, models/<name>/<version>, as the service does before it serves it.

    Exit status 1 says that the service would refuse it.
    """
    from serving.policy.artefact import ArtefactError, version_number
    from serving.registry.examination import examine_version
    from serving.registry.trial import Trials

    if version_number(model_dir.name) is None:
        what = "its name is not a whole number without zeros before it"
        raise click.UsageError(f"{model_dir} is not a version: {what}")
    _require_keys(trusted_keys)
    try:
        with Trials() as trials:
            card, _, golden, _ = examine_version(
                model_dir, Settings(trusted_keys=trusted_keys), trials
            )
    except ArtefactError as error:
        click.echo(f"refused: {error}")
        sys.exit(1)
    numbers, actions = card.observations.names, card.actions.names
    click.echo(f"files          {len(card.checksums)}, each with its checksum on the card")
    if trusted_keys is not None:
        click.echo(f"signed         by one of the keys in {trusted_keys}")
    click.echo(f"signatures     as designed: {len(numbers)} numbers in, {len(actions)} actions")
    click.echo(f"golden values  {len(golden.observations)} rows within {golden.tolerance:g}")
    click.echo(
        f"evaluation     solved, mean return {card.evaluation.greedy.mean:g} greedy,"
        f" {card.evaluation.sampled.mean:g} sampled"
    )


@commands.command()
@click.argument("version", required=False)
@click.option("--label", help="Keep the version loaded under this label, beside the served one.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    callback=finite,
    help="Have it answer this share of the episodes, as a canary of the served one; 0 ends that.",
)
@click.option(
    "--if-better",
    is_flag=True,
    help="Only if `compare` finds it better than the served version; else exit status 1.",
)
@log_option(required=False)
@click.option("--shadow/--no-shadow", default=None, help="Compare it, unseen, with the served one.")
@settings_options("models", "name", "min_return", "trusted_keys")
def promote(
    version: str | None,
    label: str | None,
    share: float | None,
    if_better: bool,
    log: Path | None,
    shadow: bool | None,
    **options: Any,
) -> None:
    """Serve VERSION from now on, and after every restart; without VERSION always the newest.

    Running services follow within their --poll-seconds.
    """
    settings = Settings(**options)
    _require_keys(settings.trusted_keys)
    from serving.registry.promotion import promote
    from serving.registry.selection import SelectionError

    try:
        if if_better:
            require_better(settings, version, log)
        click.echo(promote(settings, version, label, share, shadow))
    except SelectionError as error:
        raise click.UsageError(str(error)) from error


@commands.command()
@settings_options("models", "name", "min_return", "trusted_keys")
def rollback(**options: Any) -> None:
    """Serve the newest good version before the one that is served, as `promote` would."""
    settings = Settings(**options)
    _require_keys(settings.trusted_keys)
    from serving.registry.promotion import rollback
    from serving.registry.selection import SelectionError

    try:
        click.echo(rollback(settings))
    except SelectionError as error:
        raise click.UsageError(str(error)) from error


@commands.command()
@click.option(
    "--source",
    required=True,
    type=SOURCE,
    envvar="SERVING_SOURCE",
    show_envvar=True,
    help="URL of a folder that holds <name>/<version>/, such as s3://bucket/models.",
)
@click.option(
    "--every",
    type=SECONDS,
    callback=finite,
    help="Seconds between looks at the source, until SIGTERM; without it, one look.",
)
@settings_options("models", "trusted_keys", "log_format")
def pull(source: str, every: float | None, **options: Any) -> None:
    """Fetch the versions of all models at SOURCE that are not in the models folder.

    A version is checked as `verify` does, and is then there as a whole. Exit status 1 says that
    the log has a reason why something could not be pulled.
    """
    settings = Settings(**options)
    _require_keys(settings.trusted_keys)
    import logging
    import signal
    import time

    from serving.logs import set_up_logs
    from serving.registry.pull import Puller
    from serving.registry.source import SourceError
    from serving.registry.trial import Trials, TrialsEndedError

    # With --every this is the normal end; a single look has not been finished.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143 if every is None else 0))
    try:
        with Trials() as trials:  # before obstore starts threads
            puller = Puller(source, settings, trials)
            set_up_logs(settings.log_format)
            if every is None:
                sys.exit(0 if puller.look(click.echo) else 1)
            logger = logging.getLogger(__name__)
            logger.info("pulling from %s into %s every %g seconds", source, settings.models, every)
            while True:
                puller.look(logger.info)
                time.sleep(every)
    except SourceError as error:
        raise click.UsageError(str(error)) from error
    except TrialsEndedError as error:
        raise click.ClickException(str(error)) from error


@commands.command()
@click.option(
    "--url", required=True, type=URL, envvar="SERVING_URL", show_envvar=True, help="Of the service."
)
@click.option("--model", help="Name of the model.  [default: the default model of the service]")
@click.option("--episodes", type=click.IntRange(min=1), default=5)
@click.option("--deterministic", is_flag=True, help="Take the most probable actions.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Repeats a run.")
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
