"""What a container does to a service: no privileges, little of everything, and pauses."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.artefacts import publish
from tests.conftest import ROOT, Service, Trained, pause, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.mounts import with_mounts
from tests.faults.test_models_folder import get, wait_until_told
from tests.faults.wire import Wire, children, post
from tests.users import changes_user


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.models, tmp_path / "models")


def pause_all(service: Service, seconds: float) -> None:
    """Stop every process of a service for a while, as `docker pause` does."""
    processes = [service.process.pid, *children(service.process.pid)]
    for pid in processes:
        pause(pid)
    time.sleep(seconds)
    for pid in reversed(processes):
        os.kill(pid, signal.SIGCONT)


def test_an_ordinary_user_drains_without_losing_a_request(
    models: Path, tmp_path: Path, tell: Tell
) -> None:
    with running_service(models, tmp_path / "log") as service:
        PolicyClient(service.url).wait_until_ready(60)
        with Load(service.url, 16) as load:
            time.sleep(1)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(60) == 0
        tell(str(load.outcome))
        assert load.outcome.sent == load.outcome.statuses[200] > 0
        assert (load.outcome.lost_ports, load.outcome.unused) == ([], 0)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_kernel_ends_a_worker_before_the_master(models: Path, tmp_path: Path) -> None:
    with running_service(models, tmp_path / "log") as service:
        PolicyClient(service.url).wait_until_ready(60)
        scores = [
            int(Path(f"/proc/{pid}/oom_score_adj").read_text())
            for pid in (service.process.pid, *children(service.process.pid))
        ]
    assert scores == [scores[0], 500, 500]
    assert scores[0] < 500


def test_a_folder_that_may_not_be_read_is_told_and_hurts_no_other(
    models: Path, trained: Trained, tmp_path: Path
) -> None:
    model, log = models / "cartpole", tmp_path / "log"
    unreadable = publish(trained.model_dir, model / "2")
    unreadable.chmod(0)
    options = ("--workers", "2", "--poll-seconds", "0.1")
    with running_service(models, log, *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        digest = wait_until_told(service, 1)
        two, _ = get(service, "/models").json()["models"][0]["versions"]
        assert (two["version"], two["state"]) == (2, "refused")
        assert "Permission denied" in two["reason"]
        unreadable.chmod(0o755)
        assert wait_until_told(service, 2) == digest
        model.chmod(0)  # what was there is served while nobody can say otherwise
        wait_until(lambda: "the versions of cartpole cannot be read" in log.read_text())
        assert wait_until_told(service, 2) == digest
    with running_service(models, log, *options) as service:
        wait_until(lambda: "Booting worker" in log.read_text())
        wait_until_told(service, 0, "Permission denied")
        model.chmod(0o755)
        assert wait_until_told(service, 2) == digest
    assert "Traceback" not in log.read_text()


@pytest.mark.long
def test_a_pause_is_not_counted_against_a_request(models: Path, tmp_path: Path) -> None:
    options = ("--workers", "1", "--request-timeout", "4", "--client-timeout", "5")
    with running_service(models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        workers = children(service.process.pid)
        with Wire(service.url) as whole, Wire(service.url) as half:
            request = post()
            half.send(request[:50])
            time.sleep(0.3)
            whole.send(request)
            pause_all(service, 8)
            assert whole.answer().status == 200
            assert half.ask(request[50:]).status == 200
        assert children(service.process.pid) == workers


@pytest.mark.long
def test_a_pause_is_not_counted_against_a_worker(models: Path, tmp_path: Path) -> None:
    # gunicorn ends a worker that has not reported for 35 seconds.
    options = ("--workers", "2", "--request-timeout", "5")
    with running_service(models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        workers = children(service.process.pid)
        pause_all(service, 40)
        with Wire(service.url) as wire:
            assert wire.ask(post()).status == 200
        time.sleep(3)
        assert children(service.process.pid) == workers
    assert "TIMEOUT" not in (tmp_path / "log").read_text()


def test_too_few_processes_are_named_at_the_start(models: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0 and not changes_user():
        pytest.skip("root has no limit of processes; test_container_limits.py has the same test")
    # The limit is of all threads of the user, who may have many others.
    options, within = ("--threads", "4000"), ("prlimit", "--nproc=2000")
    with running_service(models, tmp_path / "log", *options, within=within) as service:
        assert service.process.wait(60) != 0
    log = (tmp_path / "log").read_text()
    assert "threads of the workers cannot be started" in log
    assert "Traceback" not in log


def test_every_line_of_a_json_log_is_json_without_tmp_and_to_the_end(
    models: Path, tmp_path: Path
) -> None:
    # The checkout stays where it is, though that may be in /tmp.
    script = (
        'mount --bind "$1" /mnt && mount -t tmpfs none /tmp && mkdir -p "$1"'
        ' && mount --bind /mnt "$1" && mount -o remount,bind,ro /tmp'
    )
    within = with_mounts(script, ROOT)
    outside = Path("/var/tmp") / tmp_path.name
    shutil.copytree(models, outside)
    try:
        with running_service(outside, tmp_path / "log", within=within) as service:
            PolicyClient(service.url).wait_until_ready(60)
            service.process.send_signal(signal.SIGUSR2)
            wait_until(lambda: "SIGUSR2 is ignored" in (tmp_path / "log").read_text())
            with Wire(service.url) as wire:
                assert wire.ask(post()).status == 200
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(60) == 0
    finally:
        shutil.rmtree(outside)
    for line in (tmp_path / "log").read_text().splitlines():
        assert "Traceback" not in json.loads(line)["message"], line
