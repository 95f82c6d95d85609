"""A sampled decision is replayed by its seed: on every worker, after a restart, in any batch."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.client import PolicyClient
from serving.schemas import ActResponse
from tests.conftest import Service, Trained, running_service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[PolicyClient]:
    with PolicyClient(service.url) as connected:
        yield connected


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**53 - 1), rows=st.integers(1, 100), more=st.integers(1, 100))
def test_a_rows_answer_does_not_depend_on_the_rows_after_it(
    client: PolicyClient, seed: int, rows: int, more: int
) -> None:
    observations = np.random.default_rng(seed).normal(size=(rows + more, 4))
    whole = client.act(observations, seed=seed)
    part = client.act(observations[:rows], seed=seed)
    for name in ("actions", "action_logits", "log_probabilities", "state_values"):
        assert getattr(part, name) == getattr(whole, name)[:rows]


def test_every_worker_and_a_restarted_service_answer_the_same(
    service: Service, trained: Trained, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).uniform(-0.2, 0.2, (64, 4))

    def answers(url: str, times: int) -> list[ActResponse]:
        answered = []
        for _ in range(times):
            # A connection of its own each time, so that several workers get some.
            with PolicyClient(url) as client:
                answered.append(client.act(rows, seed=11))
        return answered

    first, *others = answers(service.url, 20)
    assert others == [first] * 19
    assert set(first.actions) == {0, 1}
    with running_service(trained.models, tmp_path / "log", "--workers", "3") as restarted:
        PolicyClient(restarted.url).wait_until_ready(60)
        assert answers(restarted.url, 20) == [first] * 20


def test_an_answer_without_a_seed_is_replayed_by_the_one_it_returns(client: PolicyClient) -> None:
    rows = np.zeros((64, 4))
    drawn = client.act(rows)
    assert client.act(rows, seed=drawn.seed) == drawn
    assert client.act(rows).seed != drawn.seed


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**53 - 1), angle=st.floats(-0.2, 0.2))
def test_sampled_frequencies_are_the_probabilities(
    client: PolicyClient, seed: int, angle: float
) -> None:
    rows = 20_000
    answer = client.act(np.full((rows, 4), [0.0, 0.0, angle, 0.0]), seed=seed)
    probability = answer.action_probabilities[0][1]
    deviation = math.sqrt(probability * (1 - probability) / rows)
    # Six deviations: one in a billion by chance, and hypothesis looks for the worst seed.
    assert abs(np.mean(answer.actions) - probability) <= 6 * deviation + 1e-9
