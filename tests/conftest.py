"""Shared by all tests: one trained model and one running service, both real."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import pytest

from serving.registry.trial import Trials
from tests.containers import images  # noqa: F401  # a fixture of more than one file
from tests.guess_the_sign import GuessTheSign
from tests.users import changes_user, let_in, ordinary_user

if TYPE_CHECKING:
    from tests.signatures import Key

ROOT = Path(__file__).parent.parent

# Before any test imports TensorFlow: the kernels that the service sets for itself.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# As from a terminal: what a script has put in the background ignores Ctrl-C, and its children do.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Programs start with what they set themselves, and `make` as if none had called it.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("TF_", "MAKE"))
}


def pytest_configure(config: pytest.Config) -> None:
    # What services of another user read is in a folder that pytest does not close to all others
    # whenever root starts it anew.
    if config.option.basetemp is None and changes_user():
        config.option.basetemp = tempfile.mkdtemp(prefix="pytest-")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp))


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` in the project."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        **options,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return as soon as the condition holds; fail if it does not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pause(process: int) -> None:
    """Stop a process (SIGSTOP), and wait until all its threads stand still."""
    os.kill(process, signal.SIGSTOP)
    threads = Path(f"/proc/{process}/task")
    wait_until(
        lambda: all(
            (thread / "stat").read_text().rpartition(") ")[2].startswith("T")
            for thread in threads.iterdir()
        )
    )


@pytest.fixture(scope="session", autouse=True)
def trials() -> Iterator[Trials]:
    """Made before any test runs TensorFlow in this process: after that nothing can be tried."""
    with Trials() as made:
        yield made


class Trained(NamedTuple):
    models: Path
    model_dir: Path  # models/cartpole/1
    summary: dict[str, Any]  # what `train --json` printed


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A policy trained and exported by the command line, once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist have a folder each in that of all.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    folder.mkdir(exist_ok=True)
    models, summary = folder / "models", folder / "summary.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not summary.exists():
            finished = run(
                *("training", "train", "--json"),
                *("--models", str(models), "--run-dir", str(folder / "run")),
            )
            assert finished.returncode == 0, finished.stderr
            summary.write_text(finished.stdout)
    return Trained(models, models / "cartpole" / "1", json.loads(summary.read_text()))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> "Key":
    """The key that signed `signed`."""
    from tests.signatures import new_key

    return new_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> "Key":
    """A key that has signed nothing."""
    from tests.signatures import new_key

    return new_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="session")
def signed(trained: Trained, key: "Key", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained version, signed by the command line; tests change copies of it only."""
    models = tmp_path_factory.mktemp("signed") / "models"
    model_dir = shutil.copytree(trained.model_dir, models / "cartpole" / "1")
    finished = run("training", "sign", str(model_dir), "--key", str(key.private))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == f"signed {model_dir}\n"
    return model_dir


class Service(NamedTuple):
    url: str
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def started(log: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program in the project, with its standard error in a file."""
    with (
        log.open("w") as log_file,
        subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log_file, text=True
        ) as process,
    ):
        yield process


@contextmanager
def running_service(
    models: Path, log: Path, *options: str, within: Sequence[str] = ()
) -> Iterator[Service]:
    """Run a real service as an ordinary user on a free port, and stop it.

    `within` is a command that starts it, with the privileges of the tests.
    """
    if changes_user():
        let_in(models)
        let_in(log.parent)  # where keys are too
    command = (*within, *ordinary_user(), sys.executable, "-m", "serving", "run")
    where = ("--models", str(models), "--port", "0")
    with started(log, *command, *where, *options) as process:
        assert process.stdout is not None
        try:
            yield Service(process.stdout.readline().strip(), process, log)
        finally:
            # The end without the two seconds for new connections that SIGTERM gives.
            process.send_signal(signal.SIGINT)


@contextmanager
def running_with_key(models: Path, folder: Path, key: str, *options: str) -> Iterator[Service]:
    """Run a real service that wants a key, which is ready; its files are in a folder."""
    from serving.client import PolicyClient

    (folder / "keys").write_text(key)
    keyed = ("--api-keys-file", str(folder / "keys"))
    with running_service(models, folder / "log", *keyed, *options) as running:
        PolicyClient(running.url, api_key=key).wait_until_ready(60)
        yield running


@pytest.fixture(scope="session")
def service(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the trained policy, both workers ready; tests must leave it so."""
    log = tmp_path_factory.mktemp("service") / "log"
    # A copy, so that tests of other versions do not meet.
    models = shutil.copytree(trained.models, log.parent / "models")
    with running_service(models, log) as running:
        wait_until(lambda: log.read_text().count("serving cartpole version 1") == 2)
        yield running


@pytest.fixture(scope="module")
def own_environments() -> Iterator[None]:
    """Put `tests/environments/own.py` on the path, here and in what is started."""
    folder = ROOT / "tests" / "environments"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(ENVIRONMENT, "PYTHONPATH", f"{folder}:{ROOT}")
        yield
    own = sys.modules.pop("own", None)
    if own is not None:
        for kind in own.KINDS:
            gym.registry.pop(f"{kind.__name__}-v0", None)


@pytest.fixture
def tiny_env() -> Iterator[str]:
    gym.register("GuessTheSign-v0", entry_point=lambda **_: GuessTheSign(), reward_threshold=7.5)
    yield "GuessTheSign-v0"
    gym.registry.pop("GuessTheSign-v0")
