"""The outcomes of episodes: decisions joined with feedback."""

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from serving.record.lines import Decision, Feedback
from serving.schemas import ModelVersion

ABANDONED_SECONDS = 3600.0


class OutcomesError(Exception):
    """A line cannot be used; the message says which and why."""


class Episode(NamedTuple):
    """An episode of one version under one selection.

    Attributes:
        name: given by the client.
        model: the version that decided.
        selection: digest of the version selection that chose the version.
        began: time of the first decision, seconds since 1970 in UTC.
        state: "finished" with a return; "abandoned" if an hour passed without a decision or
            feedback before that; else "running".
        return_: None unless it is finished.
    """

    name: str
    model: ModelVersion
    selection: str
    began: float
    state: Literal["finished", "abandoned", "running"]
    return_: float | None


class FeedbackFaults(msgspec.Struct, frozen=True):
    """Pieces of feedback that did not count.

    Attributes:
        late: feedback about an episode that was finished or abandoned before.
        double: feedback with a reward for a step that has one already, or with a second return;
            the first one counts.
        unknown: feedback about an episode or request without a decision on record, about a request
            id that requests of different episodes or steps share, or with the reward of a request
            whose step neither the request nor the feedback gives.
        without_episode: feedback about requests that name no episode.
    """

    late: int
    double: int
    unknown: int
    without_episode: int


class Outcomes(NamedTuple):
    """The episodes of a log, and the feedback that did not count.

    Attributes:
        episodes: in the order in which they began.
        spanning: names of episodes in which two versions, or two selections, decided.
    """

    episodes: list[Episode]
    spanning: list[str]
    feedback: FeedbackFaults


class _Decider(NamedTuple):
    model: ModelVersion
    selection: str


class _EpisodeFeedback(NamedTuple):
    """Feedback about an episode: rewards from a step on, or its return."""

    rewards: list[float] | None
    return_: float | None
    step: int | None
    ended: bool


class _Target(NamedTuple):
    """The episode and step that a request was about."""

    episode: str | None
    step: int | None


_Event = tuple[float, _Decider | _EpisodeFeedback]  # with its time


def join(lines: Iterable[Decision | Feedback]) -> Outcomes:
    """Join decisions with feedback, by episode.

    Lines are ordered by time, because several workers wrote them. An episode is finished by the
    first feedback that gives its return, or that completes its rewards, one for every step from 0
    to its end. A return covers the whole episode and replaces its rewards. Feedback about a
    request belongs to that request's step in its episode; a return is that step's reward then.
    What is decided after an episode is finished or abandoned no longer belongs to it.

    Raises:
        OutcomesError: a reward, return or sum of rewards is not finite, or a time is invalid.
    """
    events: dict[str, list[_Event]] = {}
    targets: dict[str, _Target | None] = {}
    deciders: dict[_Decider, _Decider] = {}
    feedback: list[tuple[float, Feedback]] = []
    newest = -math.inf
    for line in lines:
        time = _seconds(line)
        newest = max(newest, time)
        if isinstance(line, Feedback):
            feedback.append((time, line))
            continue
        # Many lines have equal deciders: only one object is kept.
        decider = _Decider(line.model, line.selection)
        decider = deciders.setdefault(decider, decider)
        if line.episode is not None:
            events.setdefault(line.episode, []).append((time, decider))
        target: _Target | None = _Target(line.episode, line.step)
        # A client that retries after an error may send the same id.
        targets[line.id] = target if targets.get(line.id, target) == target else None
    unknown = without_episode = 0
    for time, line in feedback:
        _require_finite(line)
        target = _Target(line.episode, line.step)
        if line.request is not None:
            target = targets.get(line.request)
        if target is None or (target.episode is not None and target.episode not in events):
            unknown += 1
        elif target.episode is None:
            without_episode += 1
        elif (part := _of_episode(line, target)) is None:
            unknown += 1
        else:
            events[target.episode].append((time, part))
    # The sort is stable: at equal times, decisions stay before feedback.
    histories = [
        _History(name, sorted(found, key=lambda event: event[0])) for name, found in events.items()
    ]
    episodes = [history.episode(newest) for history in histories if len(history.deciders) == 1]
    return Outcomes(
        sorted(episodes, key=lambda episode: (episode.began, episode.name)),
        sorted(history.name for history in histories if len(history.deciders) > 1),
        FeedbackFaults(
            sum(history.late for history in histories),
            sum(history.double for history in histories),
            unknown,
            without_episode,
        ),
    )


class _History:
    """One episode, from its events in the order of time."""

    def __init__(self, name: str, events: list[_Event]) -> None:
        self.name = name
        self.deciders: set[_Decider] = set()
        self.late = self.double = 0
        self._began: float | None = None
        self._last = events[0][0]
        self._rewards: dict[int, float] = {}
        self._steps: int | None = None  # of the whole episode, once that is known
        self._return: float | None = None
        self._is_abandoned = False
        for time, event in events:
            if self._return is None and time - self._last > ABANDONED_SECONDS:
                self._is_abandoned = True
            self._last = time
            is_over = self._is_abandoned or self._return is not None
            if isinstance(event, _EpisodeFeedback):
                self._take(event, is_over)
            elif not is_over or self._began is None:
                self._began = time if self._began is None else self._began
                self.deciders.add(event)

    def episode(self, newest: float) -> Episode:
        """The episode, with its state at the time of the newest line."""
        (decider,) = self.deciders
        assert self._began is not None
        state: Literal["finished", "abandoned", "running"] = "running"
        if self._return is not None:
            state = "finished"
        elif self._is_abandoned or newest - self._last > ABANDONED_SECONDS:
            state = "abandoned"
        return Episode(self.name, *decider, self._began, state, self._return)

    def _take(self, part: _EpisodeFeedback, is_over: bool) -> None:
        first = part.step or 0
        rewards = dict(enumerate(part.rewards or [], first))
        if part.return_ is not None:
            is_double = self._return is not None
        else:
            is_double = bool(rewards.keys() & self._rewards.keys())
        is_behind = self._steps is not None and any(step >= self._steps for step in rewards)
        if is_double:
            self.double += 1
        elif is_over or is_behind:
            self.late += 1
        if is_over or is_behind:
            return
        if part.return_ is not None:
            self._return = part.return_
            return
        for step, reward in rewards.items():
            self._rewards.setdefault(step, reward)
        if part.ended and self._steps is None:
            # It ended no earlier than its last known reward; an episode has at least one step.
            known = 1 + max(self._rewards, default=-1)
            self._steps = max(first + len(rewards), known) or None
        if len(self._rewards) == self._steps:
            try:
                self._return = math.fsum(self._rewards.values())
            except OverflowError:  # `compare` refuses it if it counts the episode
                self._return = sum(self._rewards.values())


def _of_episode(line: Feedback, target: _Target) -> _EpisodeFeedback | None:
    """What feedback says of an episode; None if the step of its reward is unknown."""
    if line.request is None:
        return _EpisodeFeedback(line.rewards, line.return_, line.step, line.ended)
    rewards = line.rewards if line.return_ is None else [line.return_]
    step = target.step if target.step is not None else line.step
    return None if rewards and step is None else _EpisodeFeedback(rewards, None, step, line.ended)


def _require_finite(line: Feedback) -> None:
    values = line.rewards or [] if line.return_ is None else [line.return_]
    if not all(map(math.isfinite, values)):
        what = "its rewards are" if line.return_ is None else "its return is"
        raise OutcomesError(f"feedback {line.id} of {line.time}: {what} not finite")


def _seconds(line: Decision | Feedback) -> float:
    try:
        return datetime.fromisoformat(line.time).timestamp()
    except ValueError as error:
        raise OutcomesError(f"line {line.number}: {line.time!r} is not a time") from error
