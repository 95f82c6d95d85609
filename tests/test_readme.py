"""The commands of README.md and docs/commands.md, run as a newcomer would in a copy."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT, Service

README = (ROOT / "README.md").read_text()
PAGES = README + (ROOT / "docs" / "commands.md").read_text()
COMMANDS = re.findall(r"^    ((?:make|curl|docker|python|\.venv/bin)\b.*)$", PAGES, re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, with the environment that is already installed."""
    copy = tmp_path_factory.mktemp("newcomer") / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def processes_in(folder: Path) -> set[int]:
    """Processes whose working directory is the folder."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(link)) == folder:
                found.add(int(link.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def demo(checkout: Path) -> Iterator[list[subprocess.CompletedProcess[str]]]:
    """`make demo`, twice."""
    yield [
        subprocess.run(
            ["make", "demo"], cwd=checkout, env=ENVIRONMENT, capture_output=True, text=True
        )
        for _ in range(2)
    ]
    assert processes_in(checkout) == set()


def test_every_command_is_known_to_these_tests() -> None:
    assert [shlex.split(command)[:4] for command in COMMANDS] == [
        ["make", "demo"],
        ["make", "test"],  # this
        ["make", "serve"],
        ["curl", "-s", "http://127.0.0.1:8000/act", "-H"],
        ["docker", "compose", "up", "--build"],  # tests/test_containers.py
        ["docker", "compose", "run", "--rm"],
        ["docker", "compose", "run", "--rm"],
        ["docker", "compose", "down", "-v"],
        ["python", "-m", "training", "train"],
        ["python", "-m", "training", "evaluate"],
        ["python", "-m", "training", "render"],
        ["python", "-m", "training", "benchmark"],
        ["python", "-m", "training", "tune"],
        ["python", "-m", "training", "sign"],
        ["python", "-m", "serving", "run"],
        ["python", "-m", "serving", "play"],
        ["python", "-m", "serving", "verify"],
        ["python", "-m", "serving", "promote"],
        ["python", "-m", "serving", "rollback"],
        ["python", "-m", "serving", "pull"],
        ["python", "-m", "serving", "replay"],
        ["python", "-m", "serving", "compare"],
        ["python", "-m", "serving", "score"],
        ["python", "-m", "serving", "health"],
        ["python", "-m", "training", "train"],  # --resume: tests/test_run.py
        [".venv/bin/python", "-m", "serving", "verify"],
        [".venv/bin/saved_model_cli", "show", "--dir", "models/cartpole/1"],
    ]


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 125


def test_make_demo_learns_serves_and_plays(
    demo: list[subprocess.CompletedProcess[str]], checkout: Path
) -> None:
    for version, finished in enumerate(demo, start=1):
        assert finished.returncode == 0, finished.stderr
        assert f"exported models/cartpole/{version}" in finished.stdout
        table = finished.stdout.split("mean latency\n")[1].splitlines()[:5]
        assert [line.split()[0] for line in table] == ["1", "2", "3", "4", "5"]
        assert sum(float(line.split()[1]) for line in table) / 5 > 450
        assert "Installing" not in finished.stdout  # nothing was installed again
        assert "make serve\n\nand open http://127.0.0.1:8000" in finished.stdout
        assert (checkout / "models" / "cartpole" / str(version) / "saved_model.pb").exists()


@pytest.mark.usefixtures("demo")
def test_make_serve_answers_the_curl_command(checkout: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    service = subprocess.Popen(
        ["make", "serve"],
        cwd=checkout,
        env=ENVIRONMENT | {"SERVING_PORT": port},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        (command,) = (line for line in COMMANDS if line.startswith("curl"))
        asked = subprocess.run(
            [
                *shlex.split(command.replace(":8000", f":{port}")),
                *("--retry", "60", "--retry-delay", "1", "--retry-all-errors", "--fail"),
            ],
            capture_output=True,
            text=True,
        )
    finally:
        os.killpg(service.pid, signal.SIGINT)  # as Ctrl-C does
        service.wait(timeout=90)
    (shown,) = re.findall(r"```json\n(.*)\n```", README)
    answer, documented = json.loads(asked.stdout), json.loads(shown)
    assert list(answer) == list(documented)
    for name, value in documented.items():
        assert type(answer[name]) is type(value)
    assert answer["seed"] == documented["seed"] == 7
    assert processes_in(checkout) == set()


@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if c.startswith((".venv", "python")) and "--resume" not in c],
)
@pytest.mark.usefixtures("demo")
def test_the_other_commands_work(command: str, checkout: Path) -> None:
    finished = subprocess.run(
        shlex.split(re.sub("^python", ".venv/bin/python", command)),
        cwd=checkout,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


def test_the_clients_lines_work(service: Service) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = lines.replace("http://127.0.0.1:8000", service.url)
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout in ("[0]\n", "[1]\n")


@pytest.mark.usefixtures("demo")
def test_ctrl_c_during_the_demo_leaves_no_process(checkout: Path) -> None:
    demo = subprocess.Popen(
        ["make", "demo"],
        cwd=checkout,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("episode"):  # all three programs are up
            break
    os.killpg(demo.pid, signal.SIGINT)
    with demo.stdout:
        assert "Traceback" not in demo.stdout.read()
    assert demo.wait(timeout=90) != 0
    assert processes_in(checkout) == set()
