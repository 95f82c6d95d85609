"""A run's folder before TensorFlow is imported: its number, what ended, and whose commit it has."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENVIRONMENT, ROOT
from tests.tools import require_program
from training.folder import RESULT, RunError, next_folder, require_unfinished


def test_the_next_number_is_after_the_largest_of_any_run(tmp_path: Path) -> None:
    base = tmp_path / "runs" / "novice"
    assert next_folder(base) == base / "1"
    (base / "7").symlink_to("nowhere")
    (base / "other").mkdir()
    assert next_folder(base) == base / "8"


def test_a_folder_of_runs_that_cannot_be_made_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to("nowhere")
    finished = subprocess.run(
        [sys.executable, "-m", "training", "train", "--max-env-steps", "1000"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "Error: runs cannot be written: File exists\n"


def test_a_folder_of_runs_that_cannot_be_listed_is_told() -> None:
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "runs"
        (base / "1").mkdir(parents=True)
        Path(folder).chmod(0o755)
        base.chmod(0o333)
        try:
            if is_root:
                os.seteuid(65_534)  # root may list everything
            with pytest.raises(RunError, match="runs cannot be written: Permission denied"):
                next_folder(base)
        finally:
            if is_root:
                os.seteuid(0)
            base.chmod(0o755)


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000])
def test_a_result_that_is_none_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(content)
    with pytest.raises(RunError, match=f"{RESULT} cannot be read: "):
        require_unfinished(tmp_path)


def test_the_commit_is_that_of_the_repository_that_has_the_source(tmp_path: Path) -> None:
    require_program("git", "git")
    package = shutil.copytree(ROOT / "training", tmp_path / "lib" / "training")
    (tmp_path / "other").mkdir()

    def git(folder: Path, *arguments: str) -> str:
        options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *options, *arguments],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def commit(**variables: str) -> Any:
        code = "import json, training.folder as f; print(json.dumps(f.provenance()))"
        printed = subprocess.check_output(
            [sys.executable, "-c", code], cwd=package.parent, env=ENVIRONMENT | variables
        )
        return json.loads(printed)["git_commit"]

    for folder in (tmp_path, tmp_path / "other"):
        git(folder, "init")
        git(folder, "commit", "--allow-empty", "-m", "somebody's")
    assert commit() is None  # as of a package in a virtual environment there
    git(tmp_path, "add", "lib/training/folder.py")
    git(tmp_path, "commit", "-m", "the source")
    assert commit() == git(tmp_path, "rev-parse", "HEAD")
    assert commit(GIT_DIR=str(tmp_path / "other" / ".git")) == git(tmp_path, "rev-parse", "HEAD")
