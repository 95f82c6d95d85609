"""What `make demo` and `make serve` print and leave when they fail or are interrupted."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT
from tests.test_readme import processes_in


@contextmanager
def started(cwd: Path, *command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=ENVIRONMENT | variables,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process


def test_make_serve_without_a_model_says_what_makes_one(tmp_path: Path) -> None:
    finished = subprocess.run(
        ["make", "serve"],
        cwd=ROOT,
        env=ENVIRONMENT | {"SERVING_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert f"There is no model in {tmp_path} yet: `make demo` trains one" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.fixture
def silent_index() -> Iterator[str]:
    """The URL of a package index that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/simple"


def test_an_installation_that_waits_shows_it_and_ends_at_ctrl_c_without_a_traceback(
    tmp_path: Path, silent_index: str
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"never-found==1 --hash=sha256:{'0' * 64}\n")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    command = (sys.executable, "-m", "scripts.install", str(tmp_path / ".venv"), str(requirements))
    index = {"PIP_INDEX_URL": silent_index, "PIP_CONFIG_FILE": os.devnull, "PIP_TIMEOUT": "20"}
    with started(ROOT, *command, **index) as install:
        assert install.stdout is not None
        printed = ""
        for line in install.stdout:
            printed += line
            if re.fullmatch(r"  \d+ s\n", line):
                break
        install.send_signal(signal.SIGINT)
        printed += install.stdout.read()
        assert install.wait() == 130
    assert re.search(r"About \d+ MB are downloaded", printed)
    assert "Traceback" not in printed


def test_ctrl_c_while_a_program_starts_ends_the_demo_without_a_traceback(tmp_path: Path) -> None:
    # tests/test_readme.py has the same while all three programs run.
    demo = (sys.executable, "-m", "scripts.demo")
    with started(tmp_path, *demo, PYTHONPATH=str(ROOT)) as process:
        assert process.stdout is not None
        printed = process.stdout.readline() + process.stdout.readline()
        time.sleep(0.3)  # into the imports of training
        os.killpg(process.pid, signal.SIGINT)
        printed += process.stdout.read()
        assert process.wait() == 130
    assert printed.lstrip().startswith("Training a policy")
    assert "Traceback" not in printed
    assert processes_in(tmp_path) == set()
