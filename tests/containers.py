"""A real Docker engine, what it knows, and compose projects that leave nothing behind."""

import json
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.tools import skip_outside_ci

ROOT = Path(__file__).parent.parent
# docker-compose 1 also builds with BuildKit, and so finds the layers that are there.
BUILDKIT = {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
# Of what an engine keeps for a project, with the command that lists it.
KINDS = {"container": ["--all"], "volume": [], "network": []}


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


def docker(*arguments: str) -> str:
    """What a command of Docker prints, log lines of containers included."""
    finished = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    description: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return description


class Project:
    """A compose project under a name of its own, on a free port."""

    def __init__(self, *command: str, files: tuple[Path, ...] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name = f"test{uuid.uuid4().hex[:8]}"
        chosen = [f"--file={path}" for path in ("docker-compose.yml", *files)]
        self._command = [*command, *chosen, "--project-name", self.name]

    def run(
        self, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of compose, whose end may be of any status."""
        given = {"PUBLISHED_PORT": str(self.port), **(variables or {})}
        # What is set for the tests themselves is none of compose's business.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
        return subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=inherited | BUILDKIT | given,
            capture_output=True,
            text=True,
        )

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        """Ask the service, as soon as it is ready."""
        return urllib3.request(
            "GET",
            f"http://127.0.0.1:{self.port}{path}",
            retries=urllib3.Retry(30, backoff_factor=0.1, status_forcelist=[503]),
        )

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        return inspect(self.run("ps", "-aq", service).stdout.strip())

    def remove(self) -> None:
        """Remove its containers, volumes, networks and images, and see that nothing is left."""
        self.run("down", "--volumes", "--remove-orphans")
        tags = docker("images", "--format={{.Repository}}:{{.Tag}}").splitlines()
        # docker-compose 1 has an underscore where version 2 has a hyphen.
        images = [tag for tag in tags if tag.startswith((f"{self.name}-", f"{self.name}_"))]
        if images:
            docker("rmi", *images)
        for kind, options in KINDS.items():
            label = f"label=com.docker.compose.project={self.name}"
            assert docker(kind, "ls", "--quiet", *options, f"--filter={label}") == "", kind


@pytest.fixture(scope="session")
def images() -> Iterator[str]:
    """All images, built once for the tests of a process: names are `<this>-<service>`."""
    require_engine()
    project = Project("docker", "compose")
    try:
        built = project.run("--profile", "operate", "--profile", "pull", "build")
        assert built.returncode == 0, built.stderr
        yield project.name
    finally:
        project.remove()


def built_images(prefix: str, folder: Path) -> Path:
    """Write a compose file that takes those images, so that a project of its own builds none."""
    services = ("train", "serve", "demo", "operate", "pull")
    lines = [f"  {service}: {{image: {prefix}-{service}}}\n" for service in services]
    path = folder / "images.yml"
    path.write_text("services:\n" + "".join(lines))
    return path
