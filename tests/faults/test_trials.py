"""Versions whose graphs do not end, or take all memory: refused, and nothing else notices."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.registry.store import Store
from tests.artefacts import edit_card, publish
from tests.conftest import (
    ENVIRONMENT,
    ROOT,
    Service,
    Trained,
    run,
    running_service,
    started,
    wait_until,
)
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.test_models_folder import get, wait_until_told
from tests.faults.wire import children
from tests.graphs import endless, fill, wrap_act

REASONS = {
    "endless": "it cannot be loaded and tried within 10 seconds of processor time",
    "terabyte": "OOM when allocating tensor",
    "gigabytes": "OOM when allocating tensor",
}


@pytest.fixture(scope="module")
def hostile(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    changes = {"endless": endless, "terabyte": fill(2**38), "gigabytes": fill(3 * 2**28)}
    versions = {}
    for number, (kind, change) in enumerate(changes.items(), 1):
        versions[kind] = shutil.copytree(trained.model_dir, folder / "cartpole" / str(number))
        wrap_act(versions[kind], change)
    return versions


@pytest.mark.long
def test_verify_refuses_what_takes_more_than_the_limits(hostile: dict[str, Path]) -> None:
    finished = run("serving", "verify", str(hostile["gigabytes"]))
    assert finished.returncode == 1, finished.stderr
    assert finished.stdout.startswith("refused: ")
    assert REASONS["gigabytes"] in finished.stdout
    assert finished.stdout.count("\n") == 1
    assert finished.stderr == ""


@pytest.mark.long
@pytest.mark.parametrize(
    "kinds", [["terabyte"], pytest.param([*REASONS], marks=pytest.mark.long)], ids=len
)
def test_a_service_goes_on_while_it_tries_what_it_refuses(
    trained: Trained, hostile: dict[str, Path], tmp_path: Path, tell: Tell, kinds: list[str]
) -> None:
    models, log = shutil.copytree(trained.models, tmp_path / "models"), tmp_path / "log"
    with running_service(models, log, "--workers", "2", "--poll-seconds", "0.1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        workers = children(service.process.pid)
        started = time.monotonic()
        with Load(service.url, 4) as load:
            for number, kind in enumerate(kinds, 2):
                publish(hostile[kind], models / "cartpole" / str(number))
                wait_until(partial(is_refused, service, number))
        tell(f"refused in {time.monotonic() - started:.1f} s; meanwhile {load.outcome}")
        assert set(load.outcome.statuses) == {200}
        assert not load.outcome.lost_ports
        for number, kind in enumerate(kinds, 2):
            for _ in range(8):  # whichever worker answers
                assert REASONS[kind] in reasons(service)[number]
        wait_until_told(service, 1)
        assert children(service.process.pid) == workers
    assert "oom" not in log.read_text().lower().replace("oom when allocating", "")


def reasons(service: Service) -> dict[int, str]:
    """Why versions are refused, by their numbers."""
    versions = get(service, "/models/cartpole").json()["versions"]
    return {one["version"]: one["reason"] for one in versions if one["state"] == "refused"}


def is_refused(service: Service, version: int) -> bool:
    return version in reasons(service)


def test_what_tries_versions_ends_with_its_worker(
    trained: Trained, hostile: dict[str, Path], tmp_path: Path
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    options = ("--workers", "1", "--poll-seconds", "0.1")
    with running_service(models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        publish(hostile["endless"], models / "cartpole" / "2")
        (worker,) = children(service.process.pid)
        (fork_server,) = children(worker)
        wait_until(lambda: len(children(fork_server)) == 1)
        (trial,) = children(fork_server)
        shutil.rmtree(models / "cartpole" / "2")  # which the next worker would try as long
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not (exists(fork_server) or exists(trial)), 5)
        wait_until_told(service, 1)


def test_verify_says_in_one_line_that_it_cannot_try_a_version(
    trained: Trained, tmp_path: Path
) -> None:
    command = (sys.executable, "-m", "serving", "verify", str(trained.model_dir))
    with started(tmp_path / "log", *command) as verifying:
        wait_until(lambda: len(children(verifying.pid)) == 1)
        os.kill(children(verifying.pid)[0], signal.SIGKILL)
        output, _ = verifying.communicate(timeout=60)
    assert (verifying.returncode, (tmp_path / "log").read_text()) == (1, "")
    assert output == "refused: cannot be examined: the process that tries versions is gone\n"


def test_verify_accepts_a_good_version_where_its_parent_ignores_the_end_of_children(
    trained: Trained,
) -> None:
    ignoring = "import runpy, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    program = ignoring + "runpy.run_module('serving', run_name='__main__')"
    finished = subprocess.run(
        [sys.executable, "-c", program, "verify", str(trained.model_dir)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_worker_that_can_try_nothing_any_more_is_replaced(
    trained: Trained, tmp_path: Path
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    options = ("--workers", "1", "--poll-seconds", "0.1")
    with running_service(models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        (worker,) = children(service.process.pid)
        (fork_server,) = children(worker)
        os.kill(fork_server, signal.SIGKILL)
        publish(
            models / "cartpole" / "1",
            models / "cartpole" / "2",
            lambda copy: edit_card(copy, lambda card: card.update(created="later")),
        )
        wait_until_told(service, 2)
        assert children(service.process.pid) != [worker]


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_version_is_examined_once_for_all_who_have_a_copy(
    trained: Trained, tmp_path: Path
) -> None:
    examined = []

    def examine(copy: Path) -> None:
        examined.append(copy)
        time.sleep(0.3)

    stores = [Store(tmp_path) for _ in range(4)]
    digests = [store.copy(trained.model_dir, ["saved_model.pb"]) for store in stores]
    assert [store.verdict(digests[0]) for store in stores] == [None] * 4
    threads = [
        threading.Thread(target=store.judge, args=(digest, examine))
        for store, digest in zip(stores, digests, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(examined) == 1
    assert [store.verdict(digests[0]) for store in stores] == [""] * 4
