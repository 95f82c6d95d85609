"""`replay` compares every part of a recorded decision, row by row."""

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from serving.metrics import Metrics
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec, decide_many
from serving.record.lines import Decision
from serving.record.reader import Located, LogError, Section
from serving.record.replay import Replayed, replay
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.schemas import ModelVersion
from serving.settings import Settings
from tests.conftest import Trained

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

SAMPLED, GREEDY = range(8), range(8, 16)  # rows


@pytest.fixture(scope="module")
def decided(trained: Trained, trials: Trials) -> tuple["Policy", Decision]:
    """A decision about rows, of which half asked for the most probable action."""
    repository = Repository(Settings(models=trained.models), Metrics(), trials)
    repository.refresh()
    policy = repository.policy()
    rows = np.random.default_rng(0).uniform(-0.1, 0.1, (16, 4)).astype(np.float32)
    is_greedy = np.array([False] * 8 + [True] * 8)
    request = DecisionRequest(policy, rows, SamplingSpec(7, is_greedy))
    (result,) = decide_many([request], 16).results
    assert isinstance(result, ActResult)
    line = Decision(
        number=1,
        id="a",
        time="t",
        model=ModelVersion("cartpole", 1),
        selection="",
        observations=rows.tolist(),
        deterministic=is_greedy.tolist(),
        seed=7,
        actions=result.outputs.actions.tolist(),
        log_probabilities=result.outputs.log_probabilities.tolist(),
        state_values=result.outputs.state_values.tolist(),
        milliseconds=1,
    )
    assert {*line.actions[:8]} == {*line.actions[8:]} == {0, 1}
    return policy, line


def replayed(policy: "Policy", line: Decision) -> Replayed:
    return replay([Section([Located("file", 2, line)], "")], lambda _: policy)


@pytest.mark.parametrize("row", [*SAMPLED, *GREEDY])
def test_another_action_is_told_in_any_row_though_its_probability_is_right(
    decided: tuple["Policy", Decision], row: int
) -> None:
    policy, line = decided
    assert replayed(policy, line) == Replayed(exact=1, rows=16)
    actions, logarithms = [*line.actions], [*line.log_probabilities]
    actions[row] = 1 - actions[row]
    logarithms[row] = math.log(1 - math.exp(logarithms[row]))
    other = msgspec.structs.replace(line, actions=actions, log_probabilities=logarithms)
    with pytest.raises(LogError, match=rf"file, line 2: .* for observations\[{row}\], where"):
        replayed(policy, other)


@pytest.mark.parametrize("name", ["log_probabilities", "state_values"])
def test_another_number_is_told_in_any_row(decided: tuple["Policy", Decision], name: str) -> None:
    policy, line = decided
    for row in (*SAMPLED, *GREEDY):
        numbers = [*getattr(line, name)]
        numbers[row] *= 1.001
        with pytest.raises(LogError, match=f"file, line 2: was recorded with the {name}"):
            replayed(policy, msgspec.structs.replace(line, **{name: numbers}))


def test_an_action_that_the_policy_has_not_is_told(decided: tuple["Policy", Decision]) -> None:
    policy, line = decided
    other = msgspec.structs.replace(line, actions=[2, *line.actions[1:]])
    with pytest.raises(LogError, match="which the policy does not have"):
        replayed(policy, other)
