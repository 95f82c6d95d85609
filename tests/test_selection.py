"""Which policy a run keeps, and when it stops, against cases decided by hand."""

import dataclasses

import numpy as np
import pytest

from tests.runs import with_units
from training.evaluation import Evaluation
from training.model import Policy, initialize
from training.presets import PRESETS
from training.selection import (
    Candidate,
    better,
    is_budget_spent,
    is_evaluation_due,
    is_search_over,
    reaches,
)

POLICY = Policy(initialize(np.random.default_rng(0), 1, 2, with_units(3)), "tanh")


def candidate(greedy: float, sampled: float) -> Candidate:
    def of_mean(mean: float) -> Evaluation:
        return Evaluation(10, mean, 0.0, mean, (mean, mean))

    return Candidate(POLICY, of_mean(greedy), of_mean(sampled))


def test_the_worse_mean_decides() -> None:
    uneven, even = candidate(greedy=500, sampled=476), candidate(greedy=480, sampled=479)
    assert better(uneven, even) is even
    assert better(even, uneven) is even


def test_pushes_decide_where_they_were_played() -> None:
    def pushed(mean: float, one: Candidate) -> Candidate:
        evaluation = Evaluation(10, mean, 0.0, mean, (mean, mean))
        return one._replace(endured=True, pushed=evaluation)

    weak, strong = pushed(360, candidate(500, 500)), pushed(380, candidate(480, 480))
    assert better(weak, strong) is strong
    assert better(strong, weak) is strong


def test_what_endured_is_better_than_what_did_not() -> None:
    endured = candidate(480, 480)._replace(endured=True)
    assert better(endured, candidate(500, 500)) is endured
    assert better(candidate(500, 500), endured) is endured


def test_the_first_is_better_than_none() -> None:
    first = candidate(475, 475)
    assert better(None, first) is first


def test_of_equals_the_later_is_kept() -> None:
    # both score 476: the later has learned longer
    earlier, later = candidate(greedy=500, sampled=476), candidate(greedy=476, sampled=490)
    assert better(earlier, later) is later
    assert better(later, earlier) is earlier


@pytest.mark.parametrize(
    ("threshold", "returns", "expected"),
    [
        (475.0, [475.0, 475.0], True),
        (475.0, [500.0, 474.9], False),
        (475.0, [474.9, 500.0], False),
        (None, [-500.0, 1.0], True),  # nothing to miss
    ],
)
def test_all_returns_must_reach_the_threshold(
    threshold: float | None, returns: list[float], expected: bool
) -> None:
    assert reaches(threshold, *returns) is expected


def test_the_budget_is_of_steps_and_where_set_of_episodes() -> None:
    steps_only = dataclasses.replace(PRESETS["ppo"], max_env_steps=100)
    assert not is_budget_spent(steps_only, env_steps=99, episodes=10**9)
    assert is_budget_spent(steps_only, env_steps=100, episodes=0)
    both = dataclasses.replace(steps_only, max_episodes=7)
    assert not is_budget_spent(both, env_steps=99, episodes=6)
    assert is_budget_spent(both, env_steps=0, episodes=7)


def test_patience_counts_the_evaluations_after_the_first_pass() -> None:
    config = dataclasses.replace(PRESETS["ppo"], patience=3)
    # the first pass is the first of them: three more make four
    assert [count for count in range(6) if is_search_over(config, None, count)] == [4, 5]


def test_the_first_that_endures_ends_the_search_unless_pushes_decide() -> None:
    endured = candidate(500, 500)._replace(endured=True)
    assert is_search_over(PRESETS["ppo"], endured, 1)
    assert not is_search_over(PRESETS["ppo"], candidate(500, 500), 1)
    assert not is_search_over(PRESETS["robust"], endured, 10**6)


@pytest.mark.parametrize(
    ("greedy", "sampled", "expected"),
    [(475.0, 475.0, True), (474.0, 500.0, False), (500.0, 474.0, False)],
)
def test_a_margin_is_that_every_episode_reaches_the_threshold(
    greedy: float, sampled: float, expected: bool
) -> None:
    def of_minimum(minimum: float) -> Evaluation:
        return Evaluation(10, 490.0, 0.0, minimum, (490.0, 490.0))

    found = Candidate(POLICY, of_minimum(greedy), of_minimum(sampled))
    assert found.has_margin(475.0) is expected
    assert not found.has_margin(None)


def test_an_evaluation_is_due_at_its_interval() -> None:
    config = dataclasses.replace(PRESETS["ppo"], evaluation_interval=5)
    due = [update for update in range(1, 12) if is_evaluation_due(config, 475.0, update, 0.0)]
    assert due == [5, 10]


def test_the_notebook_waits_until_its_running_return_exceeds_the_threshold() -> None:
    config = dataclasses.replace(
        PRESETS["notebook"], evaluation_interval=1, wait_for_running_return=True
    )
    assert not is_evaluation_due(config, 195.0, 1, running_return=195.0)
    assert is_evaluation_due(config, 195.0, 1, running_return=195.1)
    assert is_evaluation_due(config, None, 1, running_return=-1e9)  # there is none to wait for
