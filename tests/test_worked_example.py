"""The worked example of docs/decisions.md does what the page says."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.conftest import ENVIRONMENT, ROOT, Trained, wait_until


def commands() -> list[list[str]]:
    page = (ROOT / "docs" / "decisions.md").read_text()
    example = page.partition("## A worked example")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", example, re.DOTALL)
    ended = re.findall(r"`(python -m serving promote [^`]*)`", example)
    return [shlex.split(line) for line in [*"".join(blocks).splitlines(), *ended]]


@pytest.mark.long
def test_the_worked_example_does_what_the_page_says(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.models, tmp_path / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "SERVING_PORT": str(port), "SERVING_URL": url}
    done: dict[str, tuple[int, str]] = {}
    service: subprocess.Popen[bytes] | None = None
    try:
        for command in commands():
            if command[0] == "export":
                continue  # another port, in the environment
            started = subprocess.Popen(
                [sys.executable, *command[1:]], cwd=tmp_path, env=env, stdout=subprocess.PIPE
            )
            if command[3] == "run":
                service = started
                PolicyClient(url).wait_until_ready(60)
                continue
            output, _ = started.communicate(timeout=120)
            done[" ".join(command[3:])] = (started.returncode, output.decode())
            if "--share" in command and command[-1] != "0":
                wait_until(lambda: states(url)[2] != "waiting")
    finally:
        if service is not None:
            service.terminate()
            service.communicate(timeout=30)
    statuses = {command: status for command, (status, _) in done.items()}
    refused = "promote 2 --if-better --log record"
    assert statuses.pop(refused) == 1
    assert set(statuses.values()) == {0}, done
    assert "not yet known" in done[refused][1]
    played = done["play --episodes 3 --feedback"][1]
    assert played.count("500.0") == 3
    decisions = re.match(r"proved +(\d+) decisions, bit for bit", done["replay record"][1])
    assert decisions is not None
    assert int(decisions[1]) == 1500
    assert "not yet known" in done["compare --champion 1 --challenger 2 --log record"][1]
    assert done["promote 2 --share 0"][1] != ""
    assert json.loads((tmp_path / "models" / "cartpole" / "serve.json").read_text())["serve"] == 1
    assert os.listdir(tmp_path / "record")


def states(url: str) -> dict[int, str]:
    with PolicyClient(url) as client:
        (model,) = client.models().models
    return {one.version: one.state for one in model.versions}
