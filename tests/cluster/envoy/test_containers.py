"""Compose's profile `envoy` in containers; only Envoy's image is one of the tests' own."""

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import urllib3

from tests.cluster.envoy.load import Load
from tests.cluster.envoy.machines import envoy_program, make_certificate
from tests.conftest import wait_until
from tests.containers import Project, docker, inspect
from tests.faults.conftest import Tell
from tests.pull.sources import free_port
from tests.tools import require_program

pytestmark = pytest.mark.cluster
REPLICAS = 3


@pytest.fixture(scope="module")
def envoy_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with Envoy's binary, as no registry can be reached everywhere."""
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(envoy_program(), folder / "envoy")
    (folder / "envoy").chmod(0o755)
    text = "FROM python:3.11-slim-bookworm\nCOPY envoy /usr/local/bin/envoy\n"
    (folder / "Dockerfile").write_text(text)
    name = f"{folder.name}-envoy:test".lower()
    docker("build", "--tag", name, str(folder))
    yield name
    docker("rmi", name)


class Containers:
    """The project, and where Envoy is."""

    def __init__(self, project: Project, tls: Path) -> None:
        self.project = project
        self.certificate = make_certificate(tls)
        self.variables = {"PUBLISHED_TLS_PORT": str(free_port()), "TLS_FOLDER": str(tls)}
        self.url = f"https://localhost:{self.variables['PUBLISHED_TLS_PORT']}/policy"

    def run(self, *arguments: str) -> str:
        finished = self.project.run("--profile", "envoy", *arguments, variables=self.variables)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def replicas(self) -> list[str]:
        return self.run("ps", "--quiet", "replica").split()

    def is_ready(self) -> bool:
        with urllib3.PoolManager(ca_certs=str(self.certificate), retries=False) as http:
            try:
                return http.request("GET", f"{self.url}/health/ready").status == 200
            except urllib3.exceptions.HTTPError:
                return False


@pytest.fixture(scope="module")
def containers(
    images: str, envoy_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    require_program("openssl", "openssl")
    folder = tmp_path_factory.mktemp("compose")
    names = {"train": f"{images}-train", "replica": f"{images}-serve", "envoy": envoy_image}
    lines = [f"  {service}: {{image: '{name}'}}\n" for service, name in names.items()]
    (folder / "images.yml").write_text("services:\n" + "".join(lines))
    project = Project("docker", "compose", files=(folder / "images.yml",))
    (folder / "tls").mkdir()
    (folder / "tls").chmod(0o755)
    folder.chmod(0o755)
    running = Containers(project, folder / "tls")
    try:
        running.run("run", "--rm", "-T", "train", "train")
        running.run("up", "--detach", "--no-deps", "replica", "envoy")
        wait_until(running.is_ready)
        yield running
    finally:
        project.run("--profile", "envoy", "down", "--volumes", variables=running.variables)
        project.remove()


def test_envoy_is_unprivileged_and_finds_every_replica(containers: Containers) -> None:
    (envoy,) = containers.run("ps", "--quiet", "envoy").split()
    described = inspect(envoy)
    assert described["Config"]["User"] == "101"
    assert described["HostConfig"]["ReadonlyRootfs"]
    assert len(containers.replicas()) == REPLICAS
    asked = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9901/clusters').read())"

    def healthy() -> bool:
        answer = docker("exec", envoy, "python", "-c", asked)
        return answer.count("health_flags::healthy") == REPLICAS

    wait_until(healthy, 20)


def test_replicas_are_stopped_and_started_without_a_failed_request(
    containers: Containers, tell: Tell
) -> None:
    with Load(containers.url, containers.certificate, 8, "plain") as load:
        for replica in containers.replicas():
            docker("stop", replica)
            docker("start", replica)
            wait_until(partial(_is_healthy, replica))
    assert not load.outcome.failures
    tell(f"each of {REPLICAS} containers restarted: {load.outcome}")


def test_a_killed_replica_costs_policy_client_nothing(containers: Containers, tell: Tell) -> None:
    with Load(containers.url, containers.certificate, 8, "policy") as load:
        time.sleep(1)
        docker("kill", containers.replicas()[0])
        time.sleep(3)
    assert not load.outcome.failures
    tell(f"a container killed: {load.outcome}")


def _is_healthy(name: str) -> bool:
    health: str = inspect(name)["State"]["Health"]["Status"]
    return health == "healthy"
