"""The commands that check, select and fetch versions."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from serving.compare_command import log_option, require_better
from serving.settings import SECONDS, SOURCE, Settings, finite, settings_options


def require_keys(folder: Path | None) -> None:
    """Read the trusted keys, if set, so that mistakes in them are reported at once.

    Raises:
        click.UsageError: one cannot be used, or the extra `sign` is missing.
    """
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


@click.command()
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@settings_options("trusted_keys")
def verify(model_dir: Path, trusted_keys: Path | None) -> None:
    """Check a version, models/<name>/<version>, as the service does before serving it.

    The exit status is 1 if the service would refuse it.
    """
    model_dir = Path(os.path.abspath(model_dir))  # keeps a symbolic link, which is then refused
    from serving.policy.artefact import ArtefactError, version_number
    from serving.registry.examination import examine_version
    from serving.registry.trial import Trials

    if version_number(model_dir.name) is None:
        what = "its name is not a whole number without leading zeros"
        raise click.UsageError(f"{model_dir} is not a version: {what}")
    require_keys(trusted_keys)
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


@click.command()
@click.argument("version", required=False)
@click.option("--label", help="Keep the version loaded under this label, beside the served one.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    callback=finite,
    help="Let it answer this share of the episodes as a canary; 0 ends that.",
)
@click.option(
    "--if-better",
    is_flag=True,
    help="Only if `compare` finds it better than the served version; else exit status 1.",
)
@log_option(required=False)
@click.option(
    "--shadow/--no-shadow",
    default=None,
    help="Compare it with the served version, invisibly to clients.",
)
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
    require_keys(settings.trusted_keys)
    from serving.registry.promotion import promote
    from serving.registry.selection import SelectionError

    def require() -> None:
        if if_better:
            require_better(settings, version, log)

    try:
        click.echo(promote(settings, version, label, share, shadow, require))
    except SelectionError as error:
        raise click.UsageError(str(error)) from error


@click.command()
@settings_options("models", "name", "min_return", "trusted_keys")
def rollback(**options: Any) -> None:
    """Serve the newest good version before the one that is served, as `promote` would."""
    settings = Settings(**options)
    require_keys(settings.trusted_keys)
    from serving.registry.promotion import rollback
    from serving.registry.selection import SelectionError

    try:
        click.echo(rollback(settings))
    except SelectionError as error:
        raise click.UsageError(str(error)) from error


@click.command()
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
    help="Seconds between checks of the source, until SIGTERM; without it, check once.",
)
@settings_options("models", "trusted_keys", "log_format")
def pull(source: str, every: float | None, **options: Any) -> None:
    """Fetch the versions of all models at SOURCE that are not in the models folder.

    Each version is checked as `verify` does, and appears as a whole. The exit status is 1 if
    something could not be pulled; the log says why.
    """
    settings = Settings(**options)
    require_keys(settings.trusted_keys)
    import logging
    import signal
    import time

    from serving.logs import set_up_logs
    from serving.registry.pull import Puller
    from serving.registry.source import SourceError
    from serving.registry.trial import Trials, TrialsEndedError

    # With --every, SIGTERM is the normal end; without, it interrupts the only look.
    if every is not None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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
