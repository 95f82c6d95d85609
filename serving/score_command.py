"""`score`: decides about the rows of a file."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from serving.settings import Settings, settings_options
from serving.version_commands import require_keys


@click.command()
@click.argument(
    "source", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@settings_options("models", "name", "min_return", "trusted_keys")
@click.option(
    "--version",
    "pin",
    type=click.IntRange(min=0),
    envvar="SERVING_PIN",
    show_envvar=True,
    help="Score with this version.  [default: the one that the service serves]",
)
@click.option("--deterministic", is_flag=True, help="Take the most probable actions.")
@click.option(
    "--seed",
    # MAX_SEED of `serving.schemas`, an import that would slow down `health` too.
    type=click.IntRange(0, 2**53 - 1),
    help="Seed of the sampled actions.  [default: one is drawn]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def score(
    source: Path, target: Path, deterministic: bool, seed: int | None, as_json: bool, **options: Any
) -> None:
    """Decide about every row of IN as the service does, and write the decisions into OUT.

    The formats follow from the names: .csv, .jsonl (JSON Lines), .npy (NumPy) or .parquet. OUT
    appears as a whole once every row is decided about; a wrong row is reported with its place,
    and leaves OUT as it was.
    """
    settings = Settings(**options)
    require_keys(settings.trusted_keys)
    from serving.score.source import ScoreError

    try:
        found = _score(settings, source, target, deterministic, seed)
    except ScoreError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or target}: {error.strerror}") from error
    if as_json:
        import json

        click.echo(json.dumps(found))
    else:
        click.echo(_report(found))


def _score(
    settings: Settings, source: Path, target: Path, deterministic: bool, seed: int | None
) -> dict[str, Any]:
    """Score, and return the result as `--json` prints it."""
    from serving.policy.sampling import draw_seeds
    from serving.policy.tensorflow_import import import_tensorflow
    from serving.registry.store import Store
    from serving.registry.trial import Trials
    from serving.score.formats import open_source, open_target, require_formats
    from serving.score.scoring import score_rows
    from serving.score.served import served_policy

    # Mistakes are reported before TensorFlow is imported, which takes seconds.
    require_formats(source, target)
    if seed is None:
        (seed,) = draw_seeds(1)
    with open_target(target) as write, Trials() as trials, Store() as store:
        import_tensorflow()
        policy = served_policy(settings, store, trials)
        rows = open_source(source, policy.card.observations.names)
        results = write(len(policy.card.actions.names))
        began = time.monotonic()
        with click.progressbar(
            length=rows.total, file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as progress:
            found = score_rows(
                policy,
                rows,
                results,
                seed,
                deterministic=deterministic,
                advance=progress.update,
            )
        seconds = time.monotonic() - began
    return {
        **found._asdict(),
        "seconds": round(seconds, 3),
        "seed": seed,
        "model": policy.identity(),
    }


def _report(found: dict[str, Any]) -> str:
    model = found["model"]
    lines = [
        f"scored         {found['rows']:,} rows in {found['seconds']:.1f} seconds",
        f"model          {model['name']} version {model['version']}, digest {model['digest']}",
        f"seed           {found['seed']}",
    ]
    if found["out_of_range_rows"]:
        what = "rows are outside the ranges that training saw"
        lines.append(f"out of range   {found['out_of_range_rows']:,} {what}")
    return "\n".join(lines)
