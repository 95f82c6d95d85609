"""Whether one version is better than another, according to recorded decisions and feedback."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from serving.collection import collection
from serving.policy.artefact import Artefact, ArtefactError, read
from serving.record.agreement import NewestRows
from serving.record.confidence import CONFIDENCE, Answer, difference
from serving.record.lines import Decision, Feedback
from serving.record.outcomes import Episode, FeedbackFaults, Outcomes, OutcomesError, join
from serving.record.reader import LogError, read_lines
from serving.registry.store import SHOWN_DIGITS, Store, find_files

Bounds = tuple[float, float]


class CompareError(Exception):
    """Two versions cannot be compared from a log; the message says why."""


class OnDisk(NamedTuple):
    """A version that was read from the models folder."""

    version: int
    digest: str  # of all its files, 64 hex digits
    artefact: Artefact


class VersionReturns(msgspec.Struct, frozen=True):
    """The returns of one version's episodes."""

    version: int
    digest: str
    episodes: int
    mean_return: float | None  # None without episodes


class LeftOut(msgspec.Struct, frozen=True):
    """Episodes of the two versions that are not compared.

    Attributes:
        abandoned: an hour passed in them without a decision or feedback.
        waiting: the first one that is still running, and all that began after it.
        spanning: several versions or selections decided in them; of all versions in the log.
        not_canary: the client named their version, or under their selection only one of the two
            versions decided.
    """

    abandoned: int
    waiting: int
    spanning: int
    not_canary: int


class Comparison(msgspec.Struct, frozen=True):
    """The challenger against the champion.

    Attributes:
        difference: of the mean returns; None unless both have episodes.
        confidence_interval: of the difference; valid at all times simultaneously.
        more_episodes: a rough estimate of how many more would bring an answer; None if there is
            one already, or none is in sight.
    """

    model: str
    environment: str
    return_bounds: Bounds
    champion: VersionReturns
    challenger: VersionReturns
    answer: Answer
    difference: float | None
    confidence: float
    confidence_interval: Bounds
    more_episodes: int | None
    left_out: LeftOut
    feedback: FeedbackFaults


def compare(
    store: Store, folder: Path, champion: int, challenger: int, log: Path
) -> tuple[Comparison, NewestRows]:
    """Compare two versions of a model from a decision log, without TensorFlow.

    Args:
        store: takes copies of both.
        folder: of the model.
        champion: the version to compare with.
        challenger: the version in question.
        log: the decision log.

    Returns:
        The comparison, and the newest observations of the model.

    Raises:
        CompareError: they cannot be compared.
    """
    if champion == challenger:
        raise CompareError(f"version {champion} cannot be compared with itself")
    first = _read_version(store, folder, champion)
    second = _read_version(store, folder, challenger)
    bounds = _return_bounds(first, second)
    outcomes, rows = _read_record(log, folder.name, (first, second))
    return compare_returns(folder.name, first, second, bounds, outcomes), rows


def compare_returns(
    name: str, champion: OnDisk, challenger: OnDisk, bounds: Bounds, outcomes: Outcomes
) -> Comparison:
    """Compare the returns of two versions.

    Episodes count in the order in which they began, up to the first that is still running: in the
    order of their ends, short ones would come first, and in CartPole these have low returns.

    Raises:
        CompareError: a return is outside the bounds.
    """
    numbers = (champion.version, challenger.version)
    ours = [
        episode
        for episode in outcomes.episodes
        if episode.model.name == name and episode.model.version in numbers
    ]
    # Where the client or the time decided the version, more than the version can differ. The
    # selection is "" where the client named the version.
    deciders = {(episode.selection, episode.model.version) for episode in ours}
    canary = [
        episode
        for episode in ours
        if episode.selection and all((episode.selection, number) in deciders for number in numbers)
    ]
    counted = [episode for episode in canary if episode.state != "abandoned"]
    running = [index for index, episode in enumerate(counted) if episode.state == "running"]
    finished = counted[: running[0]] if running else counted
    returns = [_within(episode, bounds) for episode in finished]
    is_challenger = [episode.model.version == challenger.version for episode in finished]
    found = difference(is_challenger, returns, bounds)
    both = [
        _summary(
            version,
            [value for value, one in zip(returns, is_challenger, strict=True) if one == is_second],
        )
        for version, is_second in ((champion, False), (challenger, True))
    ]
    first, second = (one.mean_return for one in both)
    return Comparison(
        model=name,
        environment=champion.artefact.card.environment,
        return_bounds=bounds,
        champion=both[0],
        challenger=both[1],
        answer=found.answer,
        difference=None if first is None or second is None else second - first,
        confidence=CONFIDENCE,
        confidence_interval=(found.low, found.high),
        more_episodes=found.more_episodes,
        left_out=LeftOut(
            abandoned=len(canary) - len(counted),
            waiting=len(counted) - len(finished),
            spanning=len(outcomes.spanning),
            not_canary=len(ours) - len(canary),
        ),
        feedback=outcomes.feedback,
    )


def _read_version(store: Store, folder: Path, version: int) -> OnDisk:
    """Copy a version of the model in a folder, and read it without TensorFlow.

    Raises:
        CompareError: it is missing, or would not be served.
    """
    model_dir = folder / str(version)
    try:
        digest = store.copy(model_dir, find_files(model_dir).paths)
        return OnDisk(version, digest, read(store.path(digest)))
    except ArtefactError as error:
        raise CompareError(f"{model_dir}: {error}") from error
    except OSError as error:
        raise CompareError(f"{model_dir} cannot be read: {error.strerror}") from error


def _return_bounds(champion: OnDisk, challenger: OnDisk) -> Bounds:
    """The lowest and the highest possible return, from the cards of both versions.

    Raises:
        CompareError: a card has none, or the cards differ in these, environment or observations.
    """
    cards = [champion.artefact.card, challenger.artefact.card]
    for what in ("environment", "return_bounds"):
        first, second = (getattr(card, what) for card in cards)
        if first != second:
            raise CompareError(
                f"the {what} of version {champion.version} is {first}, that of version"
                f" {challenger.version} is {second}: their returns cannot be compared"
            )
    if cards[0].observations.names != cards[1].observations.names:
        raise CompareError("the two versions have different observations")
    bounds = cards[0].return_bounds
    if bounds is None or not bounds[0] < bounds[1]:
        raise CompareError(
            "the cards have no return_bounds, which a comparison needs: train with --return-bounds"
        )
    return bounds


def _read_record(log: Path, name: str, versions: Sequence[OnDisk]) -> tuple[Outcomes, NewestRows]:
    """Read the decisions of a model and the feedback on them.

    Raises:
        CompareError: the log is not as it was written, has only decisions of other models, or has
            decisions of a version whose content on disk is different.
    """
    digests = {one.version: one.digest[:SHOWN_DIGITS] for one in versions}
    rows, models = NewestRows(), set()

    def of_model() -> Iterable[Decision | Feedback]:
        for line in read_lines(log):
            if isinstance(line, Decision):
                model = line.model
                models.add(model.name)
                # Keep other models' decisions: feedback on them must not count as unknown.
                if model.name == name:
                    if model.digest != digests.get(model.version, model.digest):
                        raise CompareError(
                            f"version {model.version} on record has the digest {model.digest},"
                            f" and the one on the disk {digests[model.version]}"
                        )
                    rows.add(line)
            yield line

    try:
        with collection.paused():  # collecting garbage among millions of lines is slow
            outcomes = join(of_model())
    except (LogError, OutcomesError) as error:
        raise CompareError(str(error)) from error
    if name not in models:
        listed = ", ".join(sorted(models)) or "none"
        raise CompareError(f"{log} has no decisions of the model {name}; it has: {listed}")
    return outcomes, rows


def _within(episode: Episode, bounds: Bounds) -> float:
    value = episode.return_
    assert value is not None
    low, high = bounds
    slack = 1e-6 * max(abs(low), abs(high))  # rounding of float32 sums
    if not low - slack <= value <= high + slack:
        raise CompareError(
            f"episode {episode.name} has the return {value:.9g}, outside the return_bounds"
            f" {low:g} to {high:g} of the cards"
        )
    return min(max(value, low), high)


def _summary(version: OnDisk, returns: list[float]) -> VersionReturns:
    mean = sum(returns) / len(returns) if returns else None
    return VersionReturns(version.version, version.digest[:SHOWN_DIGITS], len(returns), mean)
