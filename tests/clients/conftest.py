"""A service with an API key, its description, and what its own client is answered by it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import urllib3

from serving.client import PolicyClient
from tests.conftest import ENVIRONMENT, Trained, running_with_key

HERE = Path(__file__).parent
KEY = "a-key-of-a-test-of-generated-clients"
ROWS = [[0.01, -0.02, 0.03, 0.04], [0.1, 0.2, -0.03, 0.5]]


def run(folder: Path, *command: str) -> str:
    """Run a program in a folder; the test fails with its output where it fails."""
    path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"  # with ruff and mypy
    finished = subprocess.run(
        command,
        cwd=folder,
        # Ask this machine without a proxy, and send no telemetry.
        env=ENVIRONMENT | {"PATH": path, "NO_PROXY": "127.0.0.1", "REDOCLY_TELEMETRY": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@pytest.fixture(scope="package")
def url(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_with_key(trained.models, tmp_path_factory.mktemp("clients"), KEY) as running:
        yield running.url


@pytest.fixture
def described(url: str, tmp_path: Path) -> Path:
    """A folder with the service's description, and the programs that ask by a generated client."""
    headers = {"Authorization": f"Bearer {KEY}"}
    content = urllib3.request("GET", f"{url}/openapi.json", headers=headers).data
    (tmp_path / "openapi.json").write_bytes(content)
    for file in HERE.glob("ask_*"):
        (tmp_path / file.name).write_text(file.read_text())
    return tmp_path


@pytest.fixture(scope="package")
def expected(url: str) -> dict[str, Any]:
    """What a program prints if its client asked and understood the service."""
    with PolicyClient(url, api_key=KEY) as client:
        sampled = client.act(ROWS, seed=7)
        single = client.act(ROWS[:1], deterministic=True)
    return {
        "act": sampled.actions,
        "act_by_name": single.state_values,
        "infer": {
            "action_logits": list(chain(*sampled.action_logits)),
            "action_probabilities": list(chain(*sampled.action_probabilities)),
            "actions": sampled.actions,
            "greedy_actions": [row.index(max(row)) for row in sampled.action_logits],
            "log_probabilities": sampled.log_probabilities,
            "state_values": sampled.state_values,
        },
        "predict": sampled.state_values,
    }


def ask(folder: Path, url: str, *command: str) -> Any:
    """Run a program that asks by a generated client."""
    return json.loads(run(folder, *command, url, KEY, json.dumps(ROWS)))
