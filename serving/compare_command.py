"""`compare`, and the check behind `promote --if-better`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from serving.settings import Settings, settings_options

if TYPE_CHECKING:
    from serving.record.agreement import Agreement
    from serving.record.compare import Comparison

_VERSION = click.IntRange(min=0)


def log_option(*, required: bool) -> Callable[[FC], FC]:
    """The option `--log`; the service's variable for its decision log sets it too."""
    return click.option(
        "--log",
        type=click.Path(exists=required, path_type=Path),
        required=required,
        envvar="SERVING_DECISION_LOG",
        show_envvar=True,
        help="The decision log, a folder or a file.",
    )


@click.command()
@click.option("--champion", type=_VERSION, required=True, help="The version to compare it with.")
@click.option("--challenger", type=_VERSION, required=True, help="The version to compare.")
@log_option(required=True)
@settings_options("models", "name")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def compare(champion: int, challenger: int, log: Path, as_json: bool, **options: Any) -> None:
    """Say whether the challenger's mean return is better than the champion's, or worse.

    Returns come from the feedback on the episodes of a canary. The answer holds with 95%
    confidence however often it is asked for. Recorded observations show how often the two decide
    differently, which says nothing about returns.
    """
    settings = Settings(**options)
    import msgspec

    from serving.policy.artefact import ArtefactError
    from serving.policy.tensorflow_import import import_tensorflow
    from serving.record.agreement import agreement
    from serving.record.compare import CompareError
    from serving.record.compare import compare as compare_by_log
    from serving.record.policies import Policies
    from serving.registry.store import Store
    from serving.registry.trial import Trials
    from serving.schemas import ModelVersion

    # Trials forks, so it comes before this process runs TensorFlow.
    with Trials() as trials, Policies(settings.models, None, trials) as policies, Store() as store:
        try:
            folder = settings.models / settings.name
            compared, rows = compare_by_log(store, folder, champion, challenger, log)
            import_tensorflow()
            first, second = (
                policies.find(ModelVersion(compared.model, one.version, one.digest))
                for one in (compared.champion, compared.challenger)
            )
            agreed = agreement(rows.take(), first, second)
        except (CompareError, ArtefactError) as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        shown = {**msgspec.to_builtins(compared), "decisions": agreed._asdict()}
        click.echo(msgspec.json.encode(shown))
    else:
        click.echo(_report(compared, agreed))


def require_better(settings: Settings, version: str | None, log: Path | None) -> None:
    """Exit with status 1 and the reason unless a version is better than the served one.

    Raises:
        click.UsageError: they cannot be compared.
        SelectionError: no version is served.
    """
    from serving.policy.artefact import version_number
    from serving.record.compare import CompareError
    from serving.record.compare import compare as compare_by_log
    from serving.registry.promotion import served_version
    from serving.registry.store import Store

    challenger = None if version is None else version_number(version)
    if challenger is None or log is None:
        raise click.UsageError("--if-better needs a version and --log")
    champion = served_version(settings)
    with Store() as store:
        try:
            folder = settings.models / settings.name
            compared, _ = compare_by_log(store, folder, champion, challenger, log)
        except CompareError as error:
            raise click.UsageError(str(error)) from error
    if compared.answer != "better":
        what = f"version {challenger} is not promoted; better than {champion}: {_answer(compared)}"
        click.echo(f"{settings.name}: {what}")
        sys.exit(1)


def _answer(compared: "Comparison") -> str:
    if compared.answer != "not yet known":
        return compared.answer
    below, above = compared.confidence_interval
    if below > above:
        return "not known: the difference has changed since the canary began; start a new one"
    if compared.more_episodes is None:
        return "not yet known, nor how many more episodes would tell"
    return f"not yet known; about {compared.more_episodes:,} more episodes may tell"


def _report(compared: "Comparison", agreed: "Agreement") -> str:
    low, high = compared.return_bounds
    lines = [
        f"{compared.model}: version {compared.challenger.version} against"
        f" {compared.champion.version} in {compared.environment}, returns from {low:g} to {high:g}"
    ]
    for one in (compared.champion, compared.challenger):
        mean = "" if one.mean_return is None else f", mean return {one.mean_return:.2f}"
        lines.append(f"version {one.version:<6} {one.episodes:,} episodes{mean}")
    if compared.difference is not None:
        below, above = compared.confidence_interval
        lines.append(
            f"difference     {compared.difference:+.2f}, between {below:+.2f} and {above:+.2f}"
            f" with {compared.confidence:.0%} confidence at all times"
        )
    lines.append(f"better?        {_answer(compared)}")
    out, faults = compared.left_out, compared.feedback
    counts_by_label = {
        "left out": [
            (out.waiting, "that began with or after one still running"),
            (out.abandoned, "abandoned"),
            (out.spanning, "of two versions or selections"),
            (out.not_canary, "outside a canary of the two"),
        ],
        "feedback": [
            (faults.late, "late"),
            (faults.double, "double"),
            (faults.unknown, "unknown"),
            (faults.without_episode, "without an episode"),
        ],
    }
    for label, counts in counts_by_label.items():
        if text := ", ".join(f"{count:,} {what}" for count, what in counts if count):
            lines.append(f"{label:<15}{text}")
    differ = "no observations on record"
    if agreed.greedy is not None:
        differ = (
            f"of the newest {agreed.rows:,} on record they differ on {agreed.greedy:.2%} greedily,"
            f" on {agreed.recorded:.2%} as they were asked for"
        )
    lines.append(f"decisions      {differ}; that says nothing about returns")
    return "\n".join(lines)
