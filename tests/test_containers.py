"""The images and the compose file, with a real Docker engine."""

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from tests.conftest import ROOT, wait_until
from tests.containers import inspect, require_engine
from tests.faults.load import Load
from tests.tools import require_program

# docker-compose 1 also builds with BuildKit, and so finds the layers that are there.
BUILDKIT = {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
# For what the images do, whoever starts them.
by_one_command = pytest.mark.parametrize("demo", ["docker compose"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    require_engine()


class Project:
    """One compose project of a command, under a name of its own."""

    def __init__(self, *command: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._command = [*command, "-p", f"test{uuid.uuid4().hex[:8]}"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=os.environ | BUILDKIT | {"PUBLISHED_PORT": str(self.port)},
            capture_output=True,
            text=True,
        )

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            "GET",
            f"http://127.0.0.1:{self.port}{path}",
            retries=urllib3.Retry(30, backoff_factor=0.1, status_forcelist=[503]),
        )

    def inspect(self, service: str) -> dict[str, Any]:
        return inspect(self.run("ps", "-aq", service).stdout.strip())


@pytest.fixture(scope="module")
def built() -> None:
    """The images, so that every project finds their layers."""
    project = Project("docker", "compose")
    finished = project.run("build")
    assert finished.returncode == 0, finished.stderr
    project.run("down", "--rmi", "local")


@pytest.fixture(scope="module", params=["docker compose", "docker-compose"])
def demo(
    request: pytest.FixtureRequest,
    built: None,  # noqa: ARG001  # wanted for its effect
) -> Iterator[tuple[Project, subprocess.CompletedProcess[str]]]:
    """`run --rm demo`, which brings up the whole way."""
    command = request.param.split()
    require_program(command[0], command[0])
    project = Project(*command)
    try:
        yield project, project.run("run", "--rm", "demo")
    finally:
        project.run("down", "-v", "--rmi", "local")


def test_run_demo_trains_serves_and_plays(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    _, finished = demo
    assert finished.returncode == 0, finished.stderr
    table = finished.stdout.split("mean latency")[1].split("\n")[1:6]
    assert [line.split()[0] for line in table] == ["1", "2", "3", "4", "5"]
    assert sum(float(line.split()[1]) for line in table) / 5 > 450


def test_the_service_stays_up_and_is_published(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    model = project.get("/health/ready").json()["model"]
    assert (model["name"], model["version"]) == ("cartpole", 1)


@by_one_command
def test_the_version_passes_its_checks_in_the_image_that_serves_it(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    finished = project.run("run", "--rm", "-T", "operate", "verify", "models/cartpole/1")
    assert finished.returncode == 0, finished.stderr
    assert "golden values" in finished.stdout


@by_one_command
def test_the_version_passes_its_evaluation_in_the_image_that_trained_it(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    finished = project.run("run", "--rm", "-T", "train", "evaluate", "models/cartpole/1")
    assert finished.returncode == 0, finished.stderr
    render = ("render", "models/cartpole/1", "--output", "runs/episode.gif")
    finished = project.run("run", "--rm", "-T", "train", *render)
    assert finished.returncode == 0, finished.stderr


@by_one_command
@pytest.mark.parametrize(("service", "gigabytes"), [("serve", 1.3), ("train", 1.4)])
def test_an_image_is_small(
    demo: tuple[Project, subprocess.CompletedProcess[str]], service: str, gigabytes: float
) -> None:
    project, _ = demo
    image = inspect(project.inspect(service)["Image"])
    assert image["Size"] < gigabytes * 1e9


def test_memory_and_processes_are_limited(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    for service, megabytes in (("train", 1024), ("serve", 2048)):
        limits = project.inspect(service)["HostConfig"]
        assert limits["Memory"] == megabytes * 2**20
        assert limits["PidsLimit"] == 1024


@by_one_command
def test_docker_asks_the_address_that_the_service_has(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    name = f"{project.port}-health"
    options = ("--name", name, "-e", "SERVING_PORT=9000", "-e", "http_proxy=http://127.0.0.1:9")
    started = project.run("run", "-d", "--no-deps", *options, "serve")
    assert started.returncode == 0, started.stderr
    try:
        wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 120)
        assert inspect(name)["State"]["Health"]["Log"][-1]["Output"] == "ready\n"
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True)


def test_containers_are_unprivileged_and_the_models_read_only(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    service = project.inspect("serve")
    assert service["Config"]["User"] == "app"
    assert service["HostConfig"]["ReadonlyRootfs"]
    assert service["HostConfig"]["CapDrop"] == ["ALL"]
    (mount,) = service["Mounts"]
    assert not mount["RW"]
    user = project.run("exec", "-T", "serve", "id", "-u")
    assert user.stdout.strip() == "10001"
    written = project.run("exec", "-T", "serve", "touch", "/app/models/x")
    assert written.returncode != 0


def test_train_takes_options_and_its_version_is_served(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    finished = project.run("run", "--rm", "-T", "train", "train", "--seed", "3", "--json")
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["seed"] == 3
    assert summary["model_dir"] == "models/cartpole/2"
    wait_until(lambda: project.get("/health/ready").json()["model"]["version"] == 2)


def test_train_fails_with_its_own_exit_status(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    finished = project.run("run", "--rm", "-T", "train", "train", "--max-env-steps", "100")
    assert finished.returncode == 3


@by_one_command
@pytest.mark.parametrize(
    ("service", "absent"),
    [
        ("train", ["flask", "gunicorn", "serving"]),
        ("serve", ["gymnasium", "training", "pytest", "obstore"]),
        ("pull", ["gymnasium", "training", "pytest"]),
        ("demo", ["tensorflow", "flask", "gunicorn", "training"]),
    ],
)
def test_an_image_has_only_what_it_needs(
    demo: tuple[Project, subprocess.CompletedProcess[str]], service: str, absent: list[str]
) -> None:
    project, _ = demo
    code = (
        "import importlib.util as u; "
        f"print([name for name in {absent} if u.find_spec(name) is not None])"
    )
    assert project.run("build", service).returncode == 0  # which `up` does not, of a profile
    finished = project.run(
        "run", "--rm", "-T", "--no-deps", "--entrypoint", "python", service, "-c", code
    )
    assert finished.stdout.strip() == "[]", finished.stderr


@by_one_command
def test_pull_can_write_the_models_and_says_that_the_source_is_away(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    source = ("-e", "SERVING_SOURCE=http://127.0.0.1:9/models")
    finished = project.run("run", "--rm", "-T", "--no-deps", *source, "pull", "pull")
    assert finished.returncode == 1
    assert "cannot pull from http://127.0.0.1:9/models into models: PROPFIND" in finished.stderr


@by_one_command
def test_docker_stop_loses_no_request(
    demo: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = demo
    name = f"{project.port}-drain"
    started = project.run("run", "-d", "--no-deps", "--name", name, "serve")
    assert started.returncode == 0, started.stderr
    try:
        wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 120)
        # From the container's own network: Docker's proxy accepts what nobody listens for.
        within = ("nsenter", "--target", str(inspect(name)["State"]["Pid"]), "--net")
        with Load("http://127.0.0.1:8000", 16, within=within) as load:
            time.sleep(1)
            stopped = subprocess.run(["docker", "stop", "--time", "60", name], capture_output=True)
            assert stopped.returncode == 0
        assert inspect(name)["State"]["ExitCode"] == 0
        assert load.outcome.sent == load.outcome.statuses[200] > 1_000
        assert (load.outcome.lost_ports, load.outcome.unused) == ([], 0)
        shown = subprocess.run(["docker", "logs", name], capture_output=True, text=True)
        assert "Traceback" not in shown.stderr
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True)


@pytest.mark.usefixtures("built")
def test_up_runs_train_then_serve_then_the_demo() -> None:
    project = Project("docker", "compose")
    try:
        up = project.run("up", "--build", "--detach", "--wait", "train", "serve")
        # `--wait` counts a one-shot service that has ended as a failure in some versions,
        # so what counts is what runs
        assert project.get("/health/ready").status == 200, up.stderr
        assert project.run("up", "--detach").returncode == 0
        container = project.run("ps", "-aq", "demo").stdout.strip()
        status = subprocess.run(["docker", "wait", container], capture_output=True, text=True)
        assert status.stdout.strip() == "0"
        assert "mean latency" in project.run("logs", "demo").stdout
        assert project.get("/health/ready").status == 200
    finally:
        project.run("down", "-v", "--rmi", "local")


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "target"),
    [("Dockerfile.serve", "serve"), ("Dockerfile.serve", "play"), ("Dockerfile.train", "")],
)
def test_an_image_is_built_without_buildkit(file: str, target: str) -> None:
    command = ["docker", "build", "--quiet", f"--file={file}", f"--target={target}", "."]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DOCKER_BUILDKIT": "0"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    subprocess.run(["docker", "rmi", built.stdout.strip()], capture_output=True)
