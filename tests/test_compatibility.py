"""What commit 0cabd54 left goes on: tests/data/0cabd54/README.md tells how it was made."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.client import PolicyClient
from tests.artefacts import edit
from tests.conftest import ENVIRONMENT, ROOT, run, running_service

MADE = ROOT / "tests" / "data" / "0cabd54"
VERSION = "models/cartpole/1"
NO_PATH_OF = [b"/tmp/", b"/work/", b"/root/", b"/home/"]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(MADE, tmp_path_factory.mktemp("made") / "0cabd54")


def test_it_has_no_path_of_the_machine_that_made_it() -> None:
    files = [path for path in MADE.rglob("*") if path.is_file()]
    assert len(files) > 20
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


@pytest.mark.parametrize(
    ("option", "value"), [("anneal_learning_rate", True), ("running_return_rate", 0.5)]
)
def test_a_run_with_an_option_that_is_gone_is_refused_in_one_line(
    option: str, value: object, tmp_path: Path
) -> None:
    folder = shutil.copytree(MADE / "runs" / "novice", tmp_path / "run")
    edit(folder / "run.json", lambda stored: stored["config"].update({option: value}))
    finished = run("training", "train", "--resume", "--run-dir", str(folder))
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert option in finished.stderr


@pytest.mark.parametrize(
    ("name", "stopped_at"),
    [("novice", 196), pytest.param("candidate", 27, marks=pytest.mark.long)],
)
def test_its_stopped_run_goes_on_to_its_end(name: str, stopped_at: int, tmp_path: Path) -> None:
    folder = shutil.copytree(MADE / "runs" / name, tmp_path / "run")
    before = (folder / "metrics.csv").read_text()
    finished = subprocess.run(
        [sys.executable, "-m", "training", "train", "--resume", "--run-dir", "run", "--json"],
        cwd=tmp_path,  # from where the folder of models that it recorded is found
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["model_dir"] == f"models/{name}/1"
    assert (tmp_path / summary["model_dir"] / "saved_model.pb").exists()
    after = (folder / "metrics.csv").read_text()
    assert after.startswith(before)  # it went on, and did not begin again
    assert before.count("\n") == stopped_at + 1  # below a header
    assert after.count("\n") > stopped_at + 1
