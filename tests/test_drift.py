"""Drift: what a card tells of the evaluation's observations, and live ones compared with it."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import urllib3

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.client import PolicyClient
from serving.metrics import Metrics
from serving.policy.artefact import Histograms, read
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.policy.savedmodel import Policy
from serving.record.drift import BLOCKS, ROWS_AT_ONCE, Bins, Drift, LiveCounts, stability_index
from serving.record.shadow import Shadows
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.service import DecisionService
from serving.settings import Settings
from serving.statistics import SharedArrays, Statistics
from tests.artefacts import edit_card, publish, small_window
from tests.conftest import ROOT, Trained, running_service, wait_until
from training.types import FloatArray

POLE_ANGLE = 2
NAMES = ["cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity"]
RULES = (ROOT / "monitoring" / "rules.yml").read_text()
LIMIT = float(re.findall(r"policy_observation_psi\) > ([\d.]+)", RULES)[0])


def test_the_stability_index_by_hand() -> None:
    assert stability_index([0.5, 0.5], [0.5, 0.5]) == 0
    # -0.25 ln(0.25/0.5) + 0.25 ln(0.75/0.5) = 0.25 ln 3
    assert stability_index([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 * math.log(3))
    assert stability_index([0.25, 0.75], [0.5, 0.5]) == pytest.approx(0.25 * math.log(3))
    # An empty bin counts as a share of 1e-4: twice (1 - 1e-4) ln(1 / 1e-4).
    assert stability_index([1, 0], [0, 1]) == pytest.approx(2 * 0.9999 * math.log(10_000))
    assert stability_index([1, 0, 0], [1, 0, 0]) == 0


def test_the_card_has_histograms_of_the_sampled_evaluation(trained: Trained) -> None:
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    found = card["observations"]["histograms"]
    assert found["rows"] == card["evaluation"]["sampled"]["steps"]
    assert "histograms" not in card["evaluation"]["sampled"]
    assert "histograms" not in trained.summary["sampled"]
    for low, high, edges, shares in zip(
        *(card["observations"][name] for name in ("seen_low", "seen_high")),
        *(found[name] for name in ("edges", "shares")),
        strict=True,
    ):
        assert low < edges[0] < edges[-1] < high
        assert len(edges) == 9
        assert shares == pytest.approx([0.1] * 10, abs=0.001)  # of numbers that are continuous


# One number, two bins, a window of the least size.
COIN = Histograms(1, [[0.0]], [[0.5, 0.5]])
BLOCK = Bins(COIN).block_rows


def add_all(live: LiveCounts, column: list[float]) -> None:
    """Add rows of one number in requests of 7."""
    rows = np.array(column, np.float32)[:, np.newaxis]
    for start in range(0, len(rows), 7):
        live.add(rows[start : start + 7])


def test_the_newest_blocks_of_all_workers_are_compared(tmp_path: Path) -> None:
    bins = Bins(COIN)
    workers = [SharedArrays(tmp_path, slot) for slot in range(2)]
    lives = [LiveCounts(bins, worker.own("m", bins.size), 1) for worker in workers]

    def index() -> float | None:
        found = [bins.indices(worker.all("m", bins.size)) for worker in workers]
        assert found[0] == found[1]  # whoever is asked
        return None if found[0] is None else found[0][0]

    half = BLOCK // 2
    for live in lives:
        add_all(live, ([-1.0] * half + [1.0] * half) * (BLOCKS // 2 - 1))
    add_all(lives[0], [-1.0] * BLOCK)
    assert index() is None  # one block is missing
    add_all(lives[1], [1.0] * BLOCK)
    assert index() == 0
    # Six of the sixteen newest blocks: 11/16 of all rows are 1.
    add_all(lives[0], [1.0] * BLOCK * 6)
    assert index() == pytest.approx(stability_index([0.5, 0.5], [5 / 16, 11 / 16]))
    add_all(lives[1], [1.0] * BLOCK * BLOCKS)
    assert index() == pytest.approx(stability_index([0.5, 0.5], [0, 1]))


def test_a_successor_counts_on_and_leaves_out_what_was_not_a_whole_block(tmp_path: Path) -> None:
    bins = Bins(COIN)
    for blocks in (BLOCKS // 2, BLOCKS // 2):
        array = SharedArrays(tmp_path, 3).own("m", bins.size)
        assert bins.indices([array]) is None
        add_all(LiveCounts(bins, array, 1), [1.0, -1.0] * (BLOCK * blocks // 2) + [1.0] * 99)
    assert bins.indices([array]) == [0]


def test_the_window_has_at_least_the_rows_of_the_evaluation() -> None:
    for rows in (1, BLOCKS * ROWS_AT_ONCE, BLOCKS * ROWS_AT_ONCE + 1, 50_000):
        window = BLOCKS * Bins(Histograms(rows, [[0.0]], [[0.5, 0.5]])).block_rows
        assert rows <= window < rows + 2 * BLOCKS * ROWS_AT_ONCE
        assert window % (BLOCKS * ROWS_AT_ONCE) == 0


class Played(NamedTuple):
    """A policy that is served in this process, and what is counted of it."""

    policy: Policy
    service: DecisionService
    drift: Drift

    def play(self, episodes: int, *, shift: float = 0.0, seed: int = 0) -> Iterator[float]:
        """Play sampled episodes of CartPole at once; the largest index at every look.

        Args:
            episodes: how many, in step with each other.
            shift: what the sensor of the pole's angle adds, in radians.
            seed: of the episodes and the actions.
        """
        env = gym.make_vec("CartPole-v1", episodes, vectorization_mode="vector_entry_point")
        observations, _ = env.reset(seed=seed)
        running = np.ones(episodes, bool)
        for step in range(500):
            rows: FloatArray = observations.astype(np.float32)
            rows[:, POLE_ANGLE] += np.float32(shift)
            request = DecisionRequest(self.policy, rows, SamplingSpec(seed * 500 + step))
            (result,) = self.service.decide_many([request])
            assert isinstance(result, ActResult)
            observations, _, terminated, truncated, _ = env.step(result.outputs.actions)
            if step % 50 == 0 and (indices := self.drift.indices(self.policy)):
                assert list(indices) == NAMES
                yield max(indices.values())
            running &= ~(terminated | truncated)
            if not running.any():
                break
        env.close()


@pytest.fixture
def played(trained: Trained, trials: Trials) -> Played:
    metrics = Metrics()
    repository = Repository(Settings(models=trained.models), metrics, trials)
    repository.refresh()
    drift = Drift(metrics.statistics.arrays, repository)
    return Played(
        repository.policy(),
        DecisionService(1_024, metrics, drift, Shadows(repository, metrics)),
        drift,
    )


def test_a_thousand_episodes_raise_no_alert_and_a_shifted_sensor_does(played: Played) -> None:
    unchanged = [index for seed in range(20) for index in played.play(50, seed=seed)]
    assert len(unchanged) > 150
    assert max(unchanged) < LIMIT
    # The sensor is 0.05 rad (3 degrees) off from now on: found before half the window is such.
    half = BLOCKS * ROWS_AT_ONCE * 7 // 2
    shifted = [index for seed in (20, 21) for index in played.play(50, shift=0.05, seed=seed)]
    assert max(shifted[: half // 50 // 50]) > LIMIT
    assert min(shifted[10:]) > LIMIT


def test_clients_that_begin_at_one_moment_raise_no_alert(played: Played) -> None:
    looks = [index for seed in range(4) for index in played.play(1_000, seed=seed)]
    assert looks
    assert max(looks) < LIMIT


def test_deterministic_decisions_are_not_compared_with_sampled_ones(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[FloatArray] = []
    monkeypatch.setattr(LiveCounts, "add", lambda _, observations: counted.append(observations))
    rows = np.arange(16, dtype=np.float32).reshape(4, 4) / 100
    some = np.array([True, False, True, False])
    specs = [SamplingSpec(1), SamplingSpec(1, deterministic=True), SamplingSpec(1, some)]
    played.service.decide_many([DecisionRequest(played.policy, rows, spec) for spec in specs])
    np.testing.assert_array_equal(np.concatenate(counted), np.concatenate([rows, rows[1::2]]))


def test_of_a_large_call_some_rows_are_counted_from_all_of_it(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[FloatArray] = []
    monkeypatch.setattr(LiveCounts, "add", lambda _, observations: counted.append(observations))
    rows = np.linspace(0, 1, 4 * 1_000, dtype=np.float32).reshape(1_000, 4)
    played.drift.add(played.policy, rows[:64])
    played.drift.add(played.policy, rows)
    np.testing.assert_array_equal(counted[0], rows[:64])
    np.testing.assert_array_equal(counted[1], rows[::16])


def test_a_successor_continues_the_counts_until_their_version_is_unloaded(
    trained: Trained, tmp_path: Path, trials: Trials
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    edit_card(models / "cartpole" / "1", small_window)

    def start() -> tuple[Drift, Repository]:
        metrics = Metrics(Statistics(tmp_path / "statistics", 0))
        repository = Repository(Settings(models=models), metrics, trials)
        repository.refresh()
        return Drift(metrics.statistics.arrays, repository), repository

    def fill(drift: Drift, repository: Repository) -> None:
        for _ in range(129):
            drift.add(repository.policy(), np.zeros((64, 4), np.float32))

    fill(*start())
    drift, repository = start()  # it decides nothing
    assert list(drift.indices(repository.policy())) == NAMES
    for _ in range(2):
        repository.select("cartpole", "nothing")
        repository.select("cartpole", "newest")
        assert drift.indices(repository.policy()) == {}
        fill(drift, repository)
        assert list(drift.indices(repository.policy())) == NAMES


def without_histograms(model_dir: Path) -> None:
    """Make a version as they were before their cards had histograms."""
    edit_card(model_dir, lambda card: card["observations"].pop("histograms"))


def test_a_card_without_histograms_has_no_index(
    trained: Trained, tmp_path: Path, trials: Trials
) -> None:
    (tmp_path / "cartpole").mkdir()
    publish(trained.model_dir, tmp_path / "cartpole" / "1", without_histograms)
    metrics = Metrics()
    repository = Repository(Settings(models=tmp_path), metrics, trials)
    repository.refresh()
    api = create_api(Settings(models=tmp_path), repository, metrics, Keys([]))
    client = api.flask.test_client()
    for _ in range(129):
        answer = client.post("/act", json={"observations": [[0.0] * 4] * 64})
        assert answer.status_code == 200
    assert "policy_observation_psi{" not in client.get("/metrics").text


@pytest.mark.long
def test_a_real_service_tells_one_index_a_number_until_another_version_is_served(
    trained: Trained, tmp_path: Path
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    edit_card(models / "cartpole" / "1", small_window)

    def indices(url: str) -> dict[str, float]:
        with urllib3.PoolManager(retries=False) as fresh:  # so that either worker may answer
            text = fresh.request("GET", f"{url}/metrics").data.decode()
        found = re.findall(r"^policy_observation_psi\{(.*)\} (\S+)$", text, re.MULTILINE)
        assert len(dict(found)) == len(found)
        return {labels: float(value) for labels, value in found}

    with running_service(models, tmp_path / "log", "--poll-seconds", "0.1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        assert indices(service.url) == {}
        tilted = [[0.0, 0.0, 1.0, 0.0]] * 64

        def is_told() -> bool:
            for _ in range(20):
                with urllib3.PoolManager(retries=False) as fresh:
                    content = {"observations": tilted}
                    assert fresh.request("POST", f"{service.url}/act", json=content).status == 200
            return bool(indices(service.url))

        wait_until(is_told)
        first = indices(service.url)
        expected = [f'model="cartpole",observation="{name}"' for name in NAMES]
        assert sorted(first) == sorted(expected)
        known = read(models / "cartpole" / "1").card.observations.histograms
        assert known is not None
        for label, shares, edges in zip(expected, known.shares, known.edges, strict=True):
            value = 1.0 if "pole_angle" in label else 0.0
            live = np.zeros(len(shares))
            live[np.searchsorted(np.array(edges, np.float32), value, side="right")] = 1
            assert first[label] == pytest.approx(stability_index(shares, live))
        assert all(indices(service.url) == first for _ in range(10))
        publish(trained.model_dir, models / "cartpole" / "2", without_histograms)
        wait_until(lambda: not any(indices(service.url) for _ in range(4)))
