"""Programs that some tests need: without one they are skipped, but never in CI."""

import os
import shutil

import pytest


def skip_outside_ci(problem: str) -> None:
    """Skip the test that calls this, with the reason; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


def require_program(name: str, package: str) -> None:
    """Skip the test that calls this where a program is missing, which a Debian package has."""
    if shutil.which(name) is None:
        skip_outside_ci(f"{name} is missing: apt-get install {package}")
