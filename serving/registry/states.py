"""The state of each version in `GET /models`, and why none is served."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from serving.registry.assignment import Assignment
from serving.registry.store import SHOWN_DIGITS
from serving.schemas import VersionReport

# The reason for what is served, by what is selected.
_REASONS: dict[int | str, str] = {
    "nothing": "the model is unloaded",
    "newest": "the newest version that passes every check is served",
}


class Known(NamedTuple):
    """What was found about a version when its files were last seen."""

    fingerprint: object = None  # of the files; None: try again even if they do not change
    digest: str = ""  # of the copy
    reason: str = ""  # why it is refused


def report_version(
    version: int,
    known: Known,
    *,
    wanted: int | str,
    assignment: Assignment,
    labels: Sequence[str],
    is_examined: bool,
) -> VersionReport:
    """The state of a version and the reason for it.

    Args:
        version: its number.
        known: what was last found about it.
        wanted: the version that is selected, "newest" or "nothing".
        assignment: the versions that answer.
        labels: the version's labels.
        is_examined: whether it is being examined now.
    """
    digest = known.digest[:SHOWN_DIGITS]
    why = _REASONS.get(wanted, f"version {wanted} is selected")
    served = assignment.served
    # The share when these versions were loaded: the operator may have changed it since.
    share = assignment.selected.shares.get(version)
    answered = assignment.shares.get(version, 0.0)
    if served and version == served.version:
        return VersionReport(version, "served", why, digest, answered)
    if is_examined:
        return VersionReport(version, "waiting", "it is being examined", digest)
    reasons: dict[Literal["canary", "shadow", "labelled"], str] = {}
    if version in assignment.canaries:
        excluded = assignment.excluded.get(version)
        reasons["canary"] = (
            f"answers no episodes: {excluded}" if excluded else f"{share:g} of the episodes"
        )
    if version == assignment.selected.shadow and version in assignment.beside:
        fault = assignment.shadow_fault
        reasons["shadow"] = (
            f"compares nothing: {fault}"
            if fault
            else "decides about what the served version decides"
        )
    if labels:
        reasons["labelled"] = f"labelled {', '.join(labels)}"
    if reasons:
        return VersionReport(
            version, next(iter(reasons)), "; ".join(reasons.values()), digest, answered
        )
    if known.reason:
        reason = known.reason
        if share:
            reason += f"; the served version answers its {share:g} of the episodes"
        return VersionReport(version, "refused", reason, digest)
    return VersionReport(version, "waiting", f"not selected: {why}", digest)


def why_none_is_served(
    wanted: int | str, being_examined: int | None, known: Mapping[int, Known]
) -> str:
    """The reason, from the selection and what was found about versions; empty if unknown."""
    if wanted == "nothing":
        return "it is unloaded"
    if being_examined is not None:
        return f"version {being_examined} is being examined"
    return "; ".join(
        f"version {version}: {one.reason}"
        for version, one in sorted(known.items(), reverse=True)
        if one.reason and wanted in ("newest", version)
    )
