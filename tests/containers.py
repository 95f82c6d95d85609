"""A real Docker engine, and what it knows."""

import json
import shutil
import subprocess
from typing import Any

from tests.tools import skip_outside_ci


def engine_problem() -> str | None:
    """Why there is no engine to test with, if so."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in ("docker version", "docker compose version"):
        if subprocess.run(command.split(), capture_output=True).returncode != 0:
            return f"`{command}` fails: no Docker engine with compose here"
    return None


def require_engine() -> None:
    """Skip a test where there is no engine; CI must have one."""
    if problem := engine_problem():
        skip_outside_ci(problem)


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    shown = subprocess.run(["docker", "inspect", name], capture_output=True, text=True, check=True)
    description: dict[str, Any] = json.loads(shown.stdout)[0]
    return description
