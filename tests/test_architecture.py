"""The rules that keep the two programs apart, and the pinned requirements together."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def imports(package: str) -> dict[str, set[str]]:
    """Top-level names that each file of a package imports, inside functions too."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        names = found.setdefault(path.relative_to(ROOT).as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative imports hide what is imported"
                assert node.module is not None
                names.add(node.module.split(".")[0])
    assert found
    return found


def test_training_and_serving_never_import_each_other() -> None:
    assert not [path for path, names in imports("training").items() if "serving" in names]
    assert not [path for path, names in imports("serving").items() if "training" in names]


def test_only_the_policy_imports_tensorflow_in_serving() -> None:
    with_tensorflow = [path for path, names in imports("serving").items() if "tensorflow" in names]
    assert with_tensorflow == ["serving/policy/savedmodel.py"]


def test_training_knows_nothing_of_http_and_serving_nothing_of_learning() -> None:
    for names in imports("training").values():
        assert not names & {"flask", "gunicorn", "urllib3"}
    with_gymnasium = {path for path, names in imports("serving").items() if "gymnasium" in names}
    assert with_gymnasium == {"serving/demo/player.py", "serving/cli.py"}


@pytest.mark.parametrize("module", ["serving.demo.player", "serving.client", "serving.cli"])
def test_the_demo_player_needs_neither_tensorflow_nor_flask(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"tensorflow", "flask", "gunicorn", "orjson"} & set(loaded)


def test_importing_any_module_prints_nothing_and_starts_nothing() -> None:
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for package in ("training", "serving")
        for path in (ROOT / package).rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    ]
    code = (
        "import tensorflow, threading, os; before = threading.active_count(), os.listdir()\n"
        + "\n".join(f"import {module}" for module in modules)
        + "\nassert before == (threading.active_count(), os.listdir())"
    )
    finished = subprocess.run(
        [sys.executable, "-B", "-W", "error::ResourceWarning", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""


def pins(path: Path) -> dict[str, str]:
    """Package and its exact requirement line, markers included."""
    return {
        line.split("==")[0]: line.rstrip(" \\")
        for line in path.read_text().splitlines()
        if re.match(r"[a-z0-9]", line)
    }


def test_every_requirements_file_pins_the_same_versions_with_hashes() -> None:
    everything = pins(ROOT / "requirements" / "dev.txt")
    for name in ("train", "serve", "play"):
        path = ROOT / "requirements" / f"{name}.txt"
        assert pins(path).items() <= everything.items()
        assert path.read_text().count("--hash=sha256:") >= len(pins(path))


def test_images_get_only_what_they_need() -> None:
    needed = {
        name: set(pins(ROOT / "requirements" / f"{name}.txt"))
        for name in ("train", "serve", "play")
    }
    assert not needed["train"] & {"flask", "gunicorn"}
    assert "gymnasium" not in needed["serve"]
    assert not needed["play"] & {"flask", "gunicorn", "tensorflow", "tensorflow-cpu"}


def test_no_lock_file_names_a_registry_or_a_path_of_the_machine_that_made_it() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text())
