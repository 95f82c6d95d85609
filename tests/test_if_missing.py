"""`train --if-missing`: no second training where a version could be served already."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Trained, run
from training.versions import NO_CHECKSUM, newest_solved

CARD = "assets.extra/policy.json"


@pytest.fixture
def base(trained: Trained, tmp_path: Path) -> Path:
    """A model's folder with the versions 9 and 10, both good."""
    base = tmp_path / "models" / "cartpole"
    for number in ("9", "10"):
        shutil.copytree(trained.model_dir, base / number)
    return base


def test_the_newest_is_found_by_its_number(base: Path) -> None:
    assert newest_solved(base) == base / "10"


def test_a_folder_that_no_service_takes_for_a_version_is_passed_over(base: Path) -> None:
    (base / "10").rename(base / "010")
    assert newest_solved(base) == base / "9"


def test_a_signed_version_counts(signed: Path) -> None:
    assert (signed / "model.sig").exists()
    assert newest_solved(signed.parent) == signed


def test_a_folder_without_versions_or_none_at_all_has_none(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").touch()
    assert newest_solved(tmp_path) is None
    assert newest_solved(tmp_path / "missing") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"solved": true}'])
def test_a_card_that_is_none_is_passed_over(content: str, base: Path) -> None:
    (base / "10" / CARD).write_text(content)
    assert newest_solved(base) == base / "9"


@pytest.mark.parametrize("file", [CARD, "saved_model.pb", "variables/variables.index"])
def test_a_damaged_version_is_passed_over(file: str, base: Path) -> None:
    with (base / "10" / file).open("ab") as damaged:
        damaged.write(b" ")
    assert newest_solved(base) == base / "9"


@pytest.mark.parametrize("file", ["saved_model.pb", "assets.extra/golden.json"])
def test_a_version_with_a_file_less_or_more_is_passed_over(file: str, base: Path) -> None:
    (base / "10" / file).unlink()
    (base / "9" / "more").touch()
    assert newest_solved(base) is None


def test_nothing_is_trained_and_one_line_says_how_to_train(base: Path, tmp_path: Path) -> None:
    where = ("--models", str(base.parent), "--run-dir", str(tmp_path / "run"))
    finished = run("training", "train", "--if-missing", *where)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"{base}/10 exists and is solved, so nothing is trained")
    assert "docker compose run --rm train train" in finished.stdout
    assert finished.stdout.count("\n") == 1
    assert not (tmp_path / "run").exists()
    shown = run("training", "train", "--if-missing", "--json", *where)
    assert json.loads(shown.stdout) == {"solved": True, "model_dir": f"{base}/10"}


def test_an_unsolved_version_is_passed_over(base: Path) -> None:
    path = base / "10" / CARD
    card = json.loads(path.read_text())
    card["solved"] = False
    card["checksums"][CARD] = NO_CHECKSUM
    unsigned = json.dumps(card)
    own = hashlib.sha256(unsigned.encode()).hexdigest()
    path.write_text(unsigned.replace(NO_CHECKSUM, own))
    assert newest_solved(base) == base / "9"
    path.write_text(path.read_text().replace('"solved": false', '"solved": true '))
    assert newest_solved(base) == base / "9"  # its checksum tells


def test_a_version_that_the_clients_of_the_newest_could_not_use_is_warned_of(
    base: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "used").touch()  # ends the command before it trains
    where = ("--models", str(base.parent), "--run-dir", str(tmp_path / "run"))
    same, other = (
        run("training", "train", *where, "--env-id", env_id).stderr.splitlines()
        for env_id in ("CartPole-v1", "Acrobot-v1")
    )
    assert other[0].startswith(f"{base}/10 is for other observations or actions than Acrobot-v1")
    assert other[1:] == same
    assert len(same) == 1
