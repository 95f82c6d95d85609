"""What commit 0cabd54 left continues: tests/data/0cabd54/README.md tells how it was made."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.client import PolicyClient
from tests.conftest import ROOT, run, running_service

MADE = ROOT / "tests" / "data" / "0cabd54"
VERSION = "models/cartpole/1"
NO_PATH_OF = [b"/tmp/", b"/work/", b"/root/", b"/home/"]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(MADE, tmp_path_factory.mktemp("made") / "0cabd54")


def test_it_has_no_path_of_the_machine_that_made_it() -> None:
    files = [path for path in MADE.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        assert not any(prefix in path.read_bytes() for prefix in NO_PATH_OF), path


def test_its_version_verifies(copied: Path) -> None:
    finished = run("serving", "verify", str(copied / VERSION))
    assert finished.returncode == 0, finished.stderr


def test_its_version_is_evaluated(copied: Path) -> None:
    finished = run("training", "evaluate", str(copied / VERSION), "--episodes", "3", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["greedy"]["mean"] == 500.0


@pytest.fixture(scope="module")
def client(copied: Path) -> Iterator[PolicyClient]:
    with (
        running_service(copied / "models", copied / "log") as service,
        PolicyClient(service.url) as policy_client,
    ):
        policy_client.wait_until_ready(60)
        yield policy_client


def test_its_version_is_served(copied: Path, client: PolicyClient) -> None:
    golden = json.loads((copied / VERSION / "assets.extra" / "golden.json").read_text())
    outputs = client.act(golden["observations"], deterministic=True)
    np.testing.assert_allclose(outputs.action_logits, golden["action_logits"], rtol=1e-4, atol=1e-4)
    assert outputs.actions == np.argmax(golden["action_logits"], axis=1).tolist()


def test_its_stopped_run_is_refused_in_one_line(tmp_path: Path) -> None:
    # Its checkpoints hold the environments and the network as that version had them.
    folder = shutil.copytree(MADE / "runs" / "novice", tmp_path / "run")
    finished = run("training", "train", "--resume", "--run-dir", str(folder))
    assert finished.returncode == 2
    assert finished.stderr == (
        f"Error: {folder} holds no run to resume: run.json is not of this version\n"
    )


@pytest.mark.long
def test_a_run_goes_on_from_its_version(copied: Path, tmp_path: Path) -> None:
    finished = run(
        *("training", "train", "--from", str(copied / VERSION), "--run-dir", f"{tmp_path}/run"),
        *("--models", str(tmp_path / "models"), "--json"),
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["solved"] is True
    assert summary["env_steps"] <= 10_240  # the first or second evaluation
