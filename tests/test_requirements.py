"""Pinned requirements: equal in all lock files, hashed, and no more than an image needs."""

import re
from pathlib import Path

from tests.conftest import ROOT


def pins(path: Path) -> dict[str, str]:
    """Package and its exact requirement line, markers included."""
    return {
        line.split("==")[0]: line.rstrip(" \\")
        for line in path.read_text().splitlines()
        if re.match(r"[a-z0-9]", line)
    }


def test_every_requirements_file_pins_the_same_versions_with_hashes() -> None:
    everything = pins(ROOT / "requirements" / "dev.txt")
    for name in ("train", "serve", "play", "sign", "pull", "parquet", "grpc", "tune"):
        path = ROOT / "requirements" / f"{name}.txt"
        for package, line in pins(path).items():
            # A pin for every Python covers one for some.
            assert everything[package] in (line, line.partition(" ; ")[0])
        assert path.read_text().count("--hash=sha256:") >= len(pins(path))


def test_images_get_only_what_they_need() -> None:
    needed = {
        name: set(pins(ROOT / "requirements" / f"{name}.txt"))
        for name in ("train", "serve", "play")
    }
    assert all(needed.values())
    assert not needed["train"] & {"flask", "gunicorn"}
    assert not (needed["train"] | needed["serve"] | needed["play"]) & {"model-signing", "sigstore"}
    assert not needed["serve"] & {"gymnasium", "obstore"}
    assert not needed["play"] & {"flask", "gunicorn", "tensorflow", "tensorflow-cpu"}


def test_no_lock_file_names_a_registry_or_a_path_of_the_machine_that_made_it() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text())
