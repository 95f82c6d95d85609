"""Versions of equal content under two numbers."""

from pathlib import Path

import numpy as np

from serving.metrics import Metrics
from serving.record.drift import Drift
from serving.record.policies import Policies
from serving.registry.repository import Repository
from serving.registry.store import SHOWN_DIGITS, Store, find_files
from serving.registry.trial import Trials
from serving.schemas import ModelVersion
from serving.settings import Settings
from serving.statistics import SharedArrays
from tests.artefacts import edit_card, publish, small_window
from tests.conftest import Trained
from tests.test_drift import NAMES


def test_two_versions_of_equal_content_are_counted_apart(
    trained: Trained, tmp_path: Path, trials: Trials
) -> None:
    for version in ("1", "2"):
        publish(trained.model_dir, tmp_path / "cartpole" / version)
        edit_card(tmp_path / "cartpole" / version, small_window)
    drift = Drift(SharedArrays(), Repository(Settings(models=tmp_path), Metrics(), trials))
    with Store() as store, Policies(tmp_path, None, trials) as policies:
        files = find_files(tmp_path / "cartpole" / "1").paths
        digest = store.copy(tmp_path / "cartpole" / "1", files)[:SHOWN_DIGITS]
        first, second = (policies.find(ModelVersion("cartpole", one, digest)) for one in (1, 2))
    for _ in range(129):
        drift.add(first, np.zeros((64, 4), np.float32))
        drift.add(second, np.zeros((1, 4), np.float32))
    assert list(drift.indices(first)) == NAMES
    assert drift.indices(second) == {}
