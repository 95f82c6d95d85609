"""Decisions and feedback, joined by episode."""

import math
import random

import msgspec
import pytest

from serving.record.lines import Decision, Feedback, Line
from serving.record.outcomes import FeedbackFaults, Outcomes, OutcomesError, join
from serving.schemas import ModelVersion

Lines = list[Decision | Feedback]


def time(seconds: float) -> str:
    """RFC 3339, on some day."""
    whole, fraction = divmod(round(seconds * 1e6), 1_000_000)
    hours, rest = divmod(whole, 3600)
    return f"2026-11-29T{hours:02}:{rest // 60:02}:{rest % 60:02}.{fraction:06}Z"


def decided(
    seconds: float,
    episode: str | None,
    *,
    version: int = 3,
    step: int | None = None,
    selection: str = "s",
    request: str = "",
    name: str = "cartpole",
) -> Decision:
    return Decision(
        number=1,
        id=request or f"d{seconds}",
        time=time(seconds),
        model=ModelVersion(name, version, "d"),
        selection=selection,
        episode=episode,
        step=step,
        actions=[0],
        log_probabilities=[-0.1],
        state_values=[1.0],
        milliseconds=1,
    )


def fed(
    seconds: float,
    episode: str | None = None,
    rewards: list[float] | None = None,
    *,
    step: int | None = None,
    whole: float | None = None,
    ended: bool = False,
    request: str | None = None,
) -> Feedback:
    return Feedback(
        number=1,
        id="f",
        time=time(seconds),
        episode=episode,
        request=request,
        step=step,
        rewards=rewards,
        return_=whole,
        ended=ended,
    )


def returns(outcomes: Outcomes) -> dict[str, float | None]:
    return {episode.name: episode.return_ for episode in outcomes.episodes}


def states(outcomes: Outcomes) -> dict[str, str]:
    return {episode.name: episode.state for episode in outcomes.episodes}


def test_rewards_in_parts_add_up_once_their_steps_are_complete_whatever_their_order() -> None:
    lines: Lines = [
        decided(0, "a", step=0),
        fed(3, "a", [5.0], step=4, ended=True),
        fed(1, "a", [1.0, 2.0], step=0),
        fed(2, "a", [3.0, 4.0], step=2),
    ]
    for seed in range(10):
        random.Random(seed).shuffle(lines)
        outcomes = join(lines)
        assert returns(outcomes) == {"a": 15}
        assert states(outcomes) == {"a": "finished"}
    assert states(join(line for line in lines if line.time != time(2))) == {"a": "running"}
    # The end may be known before what is in between.
    ended: Lines = [decided(0, "a"), fed(1, "a", [5.0], step=1, ended=True)]
    assert returns(join([*ended, fed(2, "a", [1.0], step=0)])) == {"a": 6}


def test_a_return_takes_the_place_of_rewards() -> None:
    lines: Lines = [decided(0, "a"), fed(1, "a", [1.0, 1.0]), fed(2, "a", whole=-7.5, ended=True)]
    assert returns(join(lines)) == {"a": -7.5}


def test_an_episode_has_what_decided_in_it_and_when_it_began() -> None:
    lines: Lines = [
        decided(9, "b", version=4, selection="t"),
        decided(5, "a"),
        decided(2, "b", version=4, selection="t"),
    ]
    second, first = join(lines).episodes
    assert (first.name, first.model.version, first.selection) == ("a", 3, "s")
    assert (second.name, second.model.version, second.selection) == ("b", 4, "t")
    assert first.began - second.began == 3


def test_feedback_that_comes_twice_counts_once() -> None:
    lines: Lines = [
        decided(0, "a"),
        fed(1, "a", [1.0, 2.0], step=0),
        fed(2, "a", [9.0, 4.0], step=1),  # 9 is a second reward of step 1, 4 is new
        fed(3, "a", [8.0], step=3, ended=True),
        fed(4, "a", [8.0], step=3, ended=True),
    ]
    outcomes = join(lines)
    assert returns(outcomes) == {"a": 15}
    assert outcomes.feedback == FeedbackFaults(late=0, double=2, unknown=0, without_episode=0)
    outcomes = join([decided(0, "a"), fed(1, "a", whole=5.0), fed(2, "a", whole=6.0)])
    assert returns(outcomes) == {"a": 5}
    assert (outcomes.feedback.double, outcomes.feedback.late) == (1, 0)


def test_feedback_behind_the_end_is_late() -> None:
    lines: Lines = [
        decided(0, "a"),
        fed(1, "a", [1.0], step=0, ended=True),
        fed(2, "a", [1.0], step=1),
        decided(0, "b"),
        fed(1, "b", [1.0], step=1, ended=True),  # not finished: step 0 is missing
        fed(2, "b", [1.0], step=2),
    ]
    outcomes = join(lines)
    assert returns(outcomes) == {"a": 1, "b": None}
    assert (outcomes.feedback.double, outcomes.feedback.late) == (0, 2)


@pytest.mark.parametrize("step", [None, 0, 100, 212])
def test_an_end_before_rewards_that_are_known_leaves_none_out(step: int | None) -> None:
    lines: Lines = [
        decided(0, "a"),
        fed(1, "a", [1.0] * 212, step=0),
        fed(2, "a", [], step=step, ended=True),
    ]
    assert returns(join(lines)) == {"a": 212}


def test_an_end_without_any_step_ends_nothing() -> None:
    lines: Lines = [decided(0, "a"), fed(1, "a", [], ended=True)]
    assert states(join(lines)) == {"a": "running"}


def test_rewards_are_added_as_if_by_hand() -> None:
    rewards = [0.1] * 10 + [1e16, 1.0, -1e16]
    assert returns(join([decided(0, "a"), fed(1, "a", rewards, ended=True)])) == {"a": 2}
    # It ends no comparison of other episodes.
    assert returns(join([decided(0, "a"), fed(1, "a", [1e308] * 2, ended=True)])) == {"a": math.inf}


def test_feedback_on_what_was_not_decided_is_unknown() -> None:
    lines: Lines = [
        decided(0, "a"),
        decided(0, "a", request="same"),
        decided(0, "b", request="same"),
        fed(1, "z", whole=1.0),
        fed(1, request="z", rewards=[1.0]),
        fed(1, request="same", rewards=[1.0]),
    ]
    outcomes = join(lines)
    assert outcomes.feedback.unknown == 3
    again: Lines = [decided(at, "a", step=0, request="same") for at in (0, 1)]
    assert returns(join([*again, fed(2, request="same", rewards=[1.0], ended=True)])) == {"a": 1}
    assert returns(outcomes) == {"a": None, "b": None}


def test_feedback_on_a_request_is_about_its_step_of_its_episode() -> None:
    lines: Lines = [
        fed(9, request="second", whole=5.0, ended=True),  # read before what it is about
        decided(0, "a", step=0, request="first"),
        decided(1, "a", step=1, request="second"),
        decided(2, None, request="alone"),
        fed(8, request="first", rewards=[2.0]),
        fed(9, request="alone", rewards=[2.0]),
    ]
    outcomes = join(lines)
    assert returns(outcomes) == {"a": 7}
    assert (outcomes.feedback.without_episode, outcomes.feedback.unknown) == (1, 0)


def test_an_id_that_two_decisions_have_is_unknown_though_both_steps_are_known() -> None:
    lines: Lines = [decided(0, name, step=0, request="same") for name in ("a", "b")]
    outcomes = join([*lines, fed(1, request="same", rewards=[1.0], ended=True)])
    assert returns(outcomes) == {"a": None, "b": None}
    assert outcomes.feedback.unknown == 1


def test_the_step_that_a_decision_was_given_goes_before_that_of_its_feedback() -> None:
    lines: Lines = [decided(0, "a", step=0, request="first")]
    outcomes = join([*lines, fed(1, request="first", rewards=[2.0], step=7, ended=True)])
    assert returns(outcomes) == {"a": 2}


def test_feedback_by_a_clock_that_is_behind_the_decisions_finishes_its_episode() -> None:
    outcomes = join([decided(2, "a"), fed(1, "a", whole=5.0, ended=True)])
    assert returns(outcomes) == {"a": 5}
    assert [episode.began for episode in outcomes.episodes] == [
        episode.began for episode in join([decided(2, "a")]).episodes
    ]


def test_a_reward_of_a_request_whose_step_nobody_gave_is_unknown() -> None:
    lines: Lines = [
        *(decided(at, "a", request=f"r{at}") for at in range(3)),
        fed(4, request="r0", rewards=[1.0]),
        fed(5, request="r1", whole=1.0),
        fed(6, request="r2", rewards=[1.0], ended=True),
    ]
    outcomes = join(lines)
    assert returns(outcomes) == {"a": None}
    assert (outcomes.feedback.unknown, outcomes.feedback.double) == (3, 0)
    # Its feedback may give it.
    steps: Lines = [fed(7 + at, request=f"r{at}", whole=1.0, step=at) for at in range(3)]
    outcomes = join([*lines[:3], *steps, fed(10, request="r2", rewards=[], ended=True)])
    assert returns(outcomes) == {"a": 3}
    assert (outcomes.feedback.unknown, outcomes.feedback.double) == (0, 0)


def test_an_episode_of_two_versions_or_selections_has_no_return() -> None:
    lines: Lines = [
        *(decided(0, "a", version=3), decided(1, "a", version=4), fed(2, "a", whole=1.0)),
        *(decided(0, "b"), decided(1, "b", selection="t"), fed(2, "b", whole=1.0)),
        *(decided(0, "c"), decided(1, "c", name="other"), fed(2, "c", whole=1.0)),
        *(decided(0, "d"), decided(1, "d"), fed(2, "d", whole=1.0)),
    ]
    outcomes = join(lines)
    assert outcomes.spanning == ["a", "b", "c"]
    assert returns(outcomes) == {"d": 1}


def test_what_is_decided_after_the_end_changes_nothing() -> None:
    # A client counts its episodes from 1 again, after the version has changed.
    lines: Lines = [decided(0, "1"), fed(1, "1", whole=1.0), decided(2, "1", version=4)]
    outcomes = join(lines)
    assert outcomes.spanning == []
    assert [(one.model.version, one.return_) for one in outcomes.episodes] == [(3, 1)]


def test_an_hour_without_a_line_abandons_an_episode() -> None:
    started: Lines = [decided(0, "a"), fed(10, "a", [1.0], step=0)]
    assert states(join([*started, decided(3610, "b")])) == {"a": "running", "b": "running"}
    assert states(join([*started, decided(3611, "b")])) == {"a": "abandoned", "b": "running"}
    # What comes after that is late: earlier answers without the episode stay true.
    outcomes = join([*started, fed(3611, "a", [1.0], step=1, ended=True)])
    assert states(outcomes) == {"a": "abandoned"}
    assert outcomes.feedback.late == 1
    in_time = join([*started, decided(3609, "a"), fed(7000, "a", [1.0], step=1, ended=True)])
    assert returns(in_time) == {"a": 2}
    at_last = join([*started, fed(3610, "a", [1.0], step=1, ended=True)])
    assert returns(at_last) == {"a": 2}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(OutcomesError, match=r"^feedback f of 2026-\S+: its rewards are not finite"):
        join([decided(0, "a"), fed(1, "a", [1.0, value])])
    with pytest.raises(OutcomesError, match=r"^feedback f of 2026-\S+: its return is not finite"):
        join([decided(0, "a"), fed(1, "a", whole=value)])


def test_what_is_no_time_is_named() -> None:
    wrong = msgspec.structs.replace(decided(0, "a"), time="yesterday")
    with pytest.raises(OutcomesError, match=r"^line 1: 'yesterday' is not a time"):
        join([wrong])


def test_lines_as_they_are_read_can_be_joined() -> None:
    lines: Lines = [decided(0, "a"), fed(1, "a", whole=2.0, ended=True)]
    decoder = msgspec.json.Decoder(Line)
    read = [decoder.decode(msgspec.json.encode(line)) for line in lines]
    assert join(read) == join(lines)
