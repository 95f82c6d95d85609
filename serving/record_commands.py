"""The decision log on the command line: preparations for writing it, and `replay`."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.settings import Settings, settings_options
from serving.version_commands import require_keys

if TYPE_CHECKING:
    from serving.record.files import Sign


def prepare_log(settings: Settings) -> "Sign | None":
    """Make the decision log's folder, and read the key that signs its files, if one is set.

    Raises:
        click.UsageError: the folder cannot be written, or the key cannot be used.
    """
    folder, key = settings.decision_log, settings.decision_log_key
    if folder is None:
        if key is not None:
            raise click.UsageError("--decision-log-key needs --decision-log")
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise click.UsageError(f"--decision-log {folder}: {error.strerror}") from error
    if key is None:
        return None
    try:
        from serving.record.signing import PrivateKeyError, read_signer
    except ModuleNotFoundError as error:
        raise click.UsageError(f"--decision-log-key needs actor-critic[sign]: {error}") from error
    try:
        return read_signer(key)
    except PrivateKeyError as error:
        raise click.UsageError(str(error)) from error


@click.command()
@click.argument("log", type=click.Path(exists=True, path_type=Path))
@settings_options("models", "trusted_keys")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def replay(log: Path, models: Path, trusted_keys: Path | None, as_json: bool) -> None:
    """Recompute every decision in LOG, a folder or a file of it, from the versions on the disk.

    Exit status 1 names the first line that is not what was written or decided.
    """
    require_keys(trusted_keys)
    is_signed = None
    if trusted_keys is not None:
        from serving.record.signing import read_verifier

        is_signed = read_verifier(trusted_keys)
    from serving.policy.tensorflow_import import import_tensorflow
    from serving.record.policies import Policies
    from serving.record.reader import LogError, read_sections
    from serving.record.replay import replay
    from serving.registry.trial import Trials

    with Trials() as trials, Policies(models, trusted_keys, trials) as policies:
        import_tensorflow()
        try:
            found = replay(read_sections(log, is_signed), policies.find)
        except LogError as error:
            click.echo(f"not proved: {error}")
            sys.exit(1)
    if as_json:
        import json

        click.echo(json.dumps(found._asdict()))
        return
    click.echo(f"proved         {found.exact} decisions, bit for bit")
    for count, label, what in [
        (found.close, "close", "decisions differ in their last bits, as on another machine"),
        (found.without_rows, "not replayable", "decisions without their rows"),
        (found.lost, "lost", "lines that the disk was too slow for"),
        (found.feedback, "feedback", "lines"),
    ]:
        if count:
            click.echo(f"{label:<14} {count} {what}")
