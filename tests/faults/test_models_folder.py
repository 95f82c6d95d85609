"""The models folder may be read-only, be written file by file, or go away."""

import shutil
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.artefacts import files, publish
from tests.conftest import Service, Trained, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.mounts import seen_by, with_mounts
from tests.faults.wire import Wire, post

POLL = ("--poll-seconds", "0.05")


def served(service: Service) -> int:
    with Wire(service.url) as wire:
        answer = wire.ask(post())
    assert answer.status == 200
    version: int = answer.json()["model"]["version"]
    return version


def test_a_version_that_is_copied_piece_by_piece_is_served_when_it_is_whole(
    trained: Trained, tmp_path: Path, tell: Tell
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    target = models / "cartpole" / "2"
    log = tmp_path / "log"
    seen = 0

    def is_refused_again() -> bool:
        return log.read_text().count("refused cartpole version 2") > seen

    with running_service(models, log, "--workers", "1", *POLL) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with Load(service.url, 2) as load:
            pieces = 0
            for path in files(trained.model_dir):
                content = (trained.model_dir / path).read_bytes()
                assert len(content) > 1
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                for part in (content[: len(content) // 2], content[len(content) // 2 :]):
                    if pieces:
                        wait_until(is_refused_again)
                    seen = log.read_text().count("refused cartpole version 2")
                    assert served(service) == 1
                    with (target / path).open("ab") as file:
                        file.write(part)
                    pieces += 1
            wait_until(lambda: served(service) == 2)
        tell(f"copied in {pieces} pieces: {load.outcome}")
        assert load.outcome.sent == load.outcome.statuses[200]
        assert set(load.outcome.versions) <= {1, 2}


def test_a_read_only_folder_is_served_and_followed(trained: Trained, tmp_path: Path) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'
    within = with_mounts(mount, models)
    with running_service(models, tmp_path / "log", *POLL, within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with pytest.raises(OSError, match="Read-only"):
            (seen_by(service.process.pid, models) / "x").touch()
        publish(trained.model_dir, models / "cartpole" / "2")
        wait_until(lambda: served(service) == 2)


def test_what_is_served_stays_so_while_the_folder_is_away(trained: Trained, tmp_path: Path) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    log = tmp_path / "log"
    with running_service(models, log, "--workers", "1", *POLL) as service:
        PolicyClient(service.url).wait_until_ready(60)
        models.rename(tmp_path / "away")
        wait_until(lambda: "cannot be read" in log.read_text())
        for _ in range(20):
            assert served(service) == 1
        publish(trained.model_dir, tmp_path / "away" / "cartpole" / "2")
        (tmp_path / "away").rename(models)
        wait_until(lambda: served(service) == 2)
