"""The images and the compose file, with a real Docker engine."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import urllib3

import serving
from serving.settings import Settings
from tests.conftest import ROOT, Trained, wait_until
from tests.containers import Project, built_images, docker, inspect, require_engine
from tests.faults.load import Load
from tests.tools import require_program

KEYS = "the-key-of-the-demo demo decide,the-key-of-the-operator"
USER = "12345:0"  # as OpenShift starts containers: any number, and the group of root
PROFILES = ("operate", "proxy", "envoy", "pull", "monitoring")
EVERYTHING = [f"--profile={name}" for name in PROFILES]


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    require_engine()


@pytest.fixture(scope="module")
def project(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """`docker compose up`, whose demo may still be playing."""
    files = (built_images(images, tmp_path_factory.mktemp("images")),)
    project = Project("docker", "compose", files=files)
    try:
        up = project.run("up", "--detach")
        assert up.returncode == 0, up.stderr
        yield project
    finally:
        project.remove()


def end_of_demo(project: Project) -> int:
    """The exit status of the demo of `up`, once it has ended."""
    return int(docker("wait", project.run("ps", "-aq", "demo").stdout.strip()))


def returns(table: str) -> list[float]:
    """The return of each episode in the demo's table."""
    _, _, rows = table.partition("mean latency\n")
    return [float(row.split()[-3]) for row in rows.splitlines()]


def test_up_trains_serves_and_plays_and_the_service_stays_up(project: Project) -> None:
    assert end_of_demo(project) == 0
    played = returns(project.run("logs", "demo").stdout)
    assert len(played) == 5
    assert sum(played) / 5 > 450
    model = project.get("/health/ready").json()["model"]
    assert (model["name"], model["version"]) == ("cartpole", 1)


def test_run_demo_takes_options_and_needs_no_url(project: Project) -> None:
    finished = project.run("run", "--rm", "-T", "demo", "--episodes", "1")
    assert finished.returncode == 0, finished.stderr
    assert len(returns(finished.stdout)) == 1


def test_run_demo_has_the_exit_status_of_the_demo(project: Project) -> None:
    away = ("-e", "SERVING_URL=http://serve:9")
    assert project.run("run", "--rm", "-T", *away, "demo").returncode == 69


def test_an_environment_of_ones_own_is_trained_served_and_played(project: Project) -> None:
    mounted = ("-v", f"{ROOT}/examples:/examples:ro", "-e", "PYTHONPATH=/examples")
    finished = project.run(
        *("run", "--rm", "-T", *mounted, "train", "train", "--name", "thermostat"),
        *("--env-id", "thermostat:Thermostat-v0", "--max-env-steps", "5000", "--json"),
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["model_dir"] == "models/thermostat/1"
    played = project.run(
        *("run", "--rm", "-T", *mounted, "demo", "--episodes", "1"),
        *("--model", "thermostat", "--allow-module", "thermostat"),
    )
    assert played.returncode == 0, played.stderr
    assert len(returns(played.stdout)) == 1


def test_memory_and_processes_are_limited(project: Project) -> None:
    config = json.loads(project.run(*EVERYTHING, "config", "--format", "json").stdout)
    assert set(config["services"]) >= {"train", "serve", "demo", "proxy", "pull", "grafana"}
    for name, service in config["services"].items():
        assert 0 < int(service["mem_limit"]) <= 2 * 2**30, name
        assert 0 < service["pids_limit"] <= 1024, name
    for name, mebibytes in (("train", 1024), ("serve", 2048), ("demo", 256)):
        limits = project.inspect(name)["HostConfig"]
        assert limits["Memory"] == mebibytes * 2**20
        assert limits["PidsLimit"] == config["services"][name]["pids_limit"]


def test_every_setting_of_the_service_can_be_a_variable_of_compose(project: Project) -> None:
    # The others are given by the image, name files that would have to be mounted, or need packages
    # that it has not.
    files = {"trusted_keys", "api_keys_file", "decision_log_key"}
    others = {"models", "host", "port", "grpc_port", *files}
    expected = {f"SERVING_{setting.name.upper()}" for setting in fields(Settings)}
    expected -= {f"SERVING_{name.upper()}" for name in others}
    shown = project.run(
        "config", "--format", "json", variables=dict.fromkeys(expected | {"SERVING_API_KEYS"}, "x")
    )
    given = json.loads(shown.stdout)["services"]["serve"]["environment"]
    assert set(given) == expected | {"SERVING_API_KEYS"}


def test_containers_are_unprivileged_and_the_models_read_only(project: Project) -> None:
    service = project.inspect("serve")
    assert service["Config"]["User"] == "10001:0"
    assert service["HostConfig"]["ReadonlyRootfs"]
    assert service["HostConfig"]["CapDrop"] == ["ALL"]
    assert {mount["Destination"]: mount["RW"] for mount in service["Mounts"]} == {
        "/app/models": False,
        "/app/record": True,
    }
    user = project.run("exec", "-T", "serve", "id", "-u")
    assert user.stdout.strip() == "10001"
    written = project.run("exec", "-T", "serve", "touch", "/app/models/x")
    assert written.returncode != 0
    written = project.run("exec", "-T", "serve", "touch", "/app/record/x")
    assert written.returncode == 0


def test_train_takes_options_and_its_version_is_served(project: Project) -> None:
    finished = project.run("run", "--rm", "-T", "train", "train", "--seed", "3", "--json")
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["seed"] == 3
    assert summary["model_dir"] == "models/cartpole/2"
    wait_until(lambda: project.get("/health/ready").json()["model"]["version"] == 2)


def test_up_again_trains_nothing_and_follows_changed_variables(project: Project) -> None:
    """After the tests above: the service has keys from here on."""
    served = project.get("/health/ready").json()["model"]
    variables = {"SERVING_API_KEYS": KEYS, "SERVING_WORKERS": "1"}
    up = project.run("up", "--detach", variables=variables)
    assert up.returncode == 0, up.stderr
    assert project.get("/health/ready").json()["model"] == served
    log = project.run("logs", "--no-log-prefix", "train").stdout.splitlines()
    assert "nothing is trained" in log[-1]
    assert "docker compose run --rm train train" in log[-1]
    assert end_of_demo(project) == 0  # with the first of the keys
    assert project.get("/models").status == 401
    log = project.run("logs", "--no-log-prefix", "serve").stdout.splitlines()
    assert sum("Booting worker" in line for line in log) == 1
    wrong = ("-e", "SERVING_API_KEY=a-key-of-somebody-else")
    assert project.run("run", "--rm", "-T", "--no-deps", *wrong, "demo").returncode == 77


def test_where_nothing_good_was_trained_nothing_is_served(images: str, tmp_path: Path) -> None:
    short = tmp_path / "short.yml"
    command = ["train", "--if-missing", "--max-env-steps", "100"]
    short.write_text(json.dumps({"services": {"train": {"command": command}}}))
    project = Project("docker", "compose", files=(built_images(images, tmp_path), short))
    try:
        finished = project.run("run", "--rm", "-T", "demo")
        assert finished.returncode != 0
        assert 'service "train" didn\'t complete successfully: exit 3' in finished.stderr
        assert "nothing exported" in project.run("logs", "train").stdout
        assert project.run("ps", "--status=running", "-q").stdout == ""
    finally:
        project.remove()


@pytest.mark.parametrize(
    ("service", "absent"),
    [
        ("train", ["flask", "gunicorn", "serving"]),
        ("serve", ["gymnasium", "training", "pytest", "obstore"]),
        ("pull", ["gymnasium", "training", "pytest"]),
        ("demo", ["tensorflow", "flask", "gunicorn", "training"]),
    ],
)
def test_an_image_has_only_what_it_needs(images: str, service: str, absent: list[str]) -> None:
    code = (
        "import importlib.util as u; "
        f"print([name for name in {absent} if u.find_spec(name) is not None])"
    )
    python = ("run", "--rm", "--volume=/app/models", "--entrypoint=python")
    assert docker(*python, f"{images}-{service}", "-c", code) == "[]"


@pytest.mark.parametrize(("service", "gigabytes"), [("serve", 1.3), ("train", 1.4)])
def test_an_image_is_small(images: str, service: str, gigabytes: float) -> None:
    assert inspect(f"{images}-{service}")["Size"] < gigabytes * 1e9


@pytest.mark.parametrize("service", ["train", "serve", "demo", "pull"])
def test_an_image_says_what_it_is_and_whom_it_runs_as(images: str, service: str) -> None:
    config = inspect(f"{images}-{service}")["Config"]
    assert config["User"] == "10001:0"  # Kubernetes' runAsNonRoot needs a number
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    assert labels["version"] == serving.__version__
    assert labels["title"].startswith("actor-critic ")
    assert labels["description"]
    assert labels["base.name"] == "docker.io/library/python:3.11-slim-bookworm"


def test_any_user_of_group_0_can_train(images: str) -> None:
    few = ("train", "--max-env-steps", "1000", "--allow-unsolved")
    hardened = ("--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", f"--user={USER}")
    assert "exported models/cartpole/1" in docker("run", *hardened, f"{images}-train", *few)


def test_any_user_can_serve_and_play(images: str, trained: Trained) -> None:
    name = f"{images}-{uuid.uuid4().hex[:8]}"
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", f"--user={USER}")
    models = f"--volume={trained.models}:/app/models:ro"
    docker("run", "--detach", f"--name={name}", *hardened, models, f"{images}-serve")
    try:
        beside = ("--rm", *hardened, f"--network=container:{name}")
        url = ("--env", "SERVING_URL=http://127.0.0.1:8000")
        play = ("--wait", "60", "--episodes", "1")
        assert len(returns(docker("run", *beside, *url, f"{images}-demo", *play))) == 1
    finally:
        docker("rm", "--force", name)


def test_pull_can_write_the_models_and_says_that_the_source_is_away(images: str) -> None:
    source = "--env=SERVING_SOURCE=http://127.0.0.1:9/models"
    options = ("--rm", "--volume=/app/models", f"--user={USER}", source)
    finished = subprocess.run(
        ["docker", "run", *options, f"{images}-pull"], capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert "cannot pull from http://127.0.0.1:9/models into models: PROPFIND" in finished.stderr


@pytest.mark.long
def test_docker_stop_loses_no_request(images: str, trained: Trained) -> None:
    name = f"{images}-{uuid.uuid4().hex[:8]}"
    # With what would mislead a health check that takes the default port, or a proxy.
    misleading = ("--env=SERVING_PORT=9000", "--env=http_proxy=http://127.0.0.1:9")
    models = f"--volume={trained.models}:/app/models:ro"
    docker("run", "--detach", "--init", f"--name={name}", *misleading, models, f"{images}-serve")
    try:
        wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 120)
        assert inspect(name)["State"]["Health"]["Log"][-1]["Output"] == "ready\n"
        # From the container's own network: Docker's proxy accepts what nobody listens for.
        within = ("nsenter", "--target", str(inspect(name)["State"]["Pid"]), "--net")
        with Load("http://127.0.0.1:9000", 16, within=within) as load:
            time.sleep(1)
            docker("stop", "--time=60", name)
        assert inspect(name)["State"]["ExitCode"] == 0
        assert load.outcome.sent == load.outcome.statuses[200] > 100
        assert (load.outcome.lost_ports, load.outcome.unused) == ([], 0)
        assert "Traceback" not in docker("logs", name)
    finally:
        docker("rm", "--force", name)


@pytest.mark.long
def test_a_version_passes_in_the_images_what_it_passed_outside(project: Project) -> None:
    for service, *arguments in (
        ("operate", "verify", "models/cartpole/1"),
        ("train", "evaluate", "models/cartpole/1"),
        ("train", "render", "models/cartpole/1", "--output", "runs/episode.gif"),
    ):
        finished = project.run("run", "--rm", "-T", service, *arguments)
        assert finished.returncode == 0, finished.stderr


@pytest.mark.long
def test_docker_compose_1_runs_the_demo_too() -> None:
    require_program("docker-compose", "docker-compose")
    project = Project("docker-compose")
    try:
        finished = project.run("run", "--rm", "-T", "demo")
        assert finished.returncode == 0, finished.stderr
        assert len(returns(finished.stdout)) == 5
        assert project.get("/health/ready").status == 200
    finally:
        project.remove()


# Debian's nginx in the place of the image that the profile names, at the path where that has it.
NGINX = """\
FROM python:3.11-slim-bookworm
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends nginx-light
"""


@pytest.mark.long
def test_the_profile_proxy_shows_the_service_over_tls(images: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(NGINX)
    nginx = tmp_path / "nginx.yml"
    build = {"services": {"proxy": {"build": str(tmp_path), "image": f"{images}-nginx"}}}
    nginx.write_text(json.dumps(build))
    tls = tmp_path / "tls"
    tls.mkdir()
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    files = ["-subj", "/CN=localhost", "-keyout", f"{tls}/tls.key", "-out", f"{tls}/tls.crt"]
    made = subprocess.run(["openssl", *request.split(), *files], capture_output=True)
    assert made.returncode == 0
    for path in (tls, *tls.iterdir()):
        path.chmod(0o755)
    project = Project("docker", "compose", files=(built_images(images, tmp_path), nginx))
    port = project.port
    variables = {"TLS_FOLDER": str(tls), "PUBLISHED_TLS_PORT": str(port), "PUBLISHED_PORT": "0"}
    try:
        up = project.run("--profile", "proxy", "up", "--detach", "proxy", variables=variables)
        assert up.returncode == 0, up.stderr
        url = f"https://127.0.0.1:{port}/policy/health/ready"
        with urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False) as http:
            retries = urllib3.Retry(10, backoff_factor=0.1)
            with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
                assert http.request("GET", url, retries=retries).status == 200
    finally:
        project.run("--profile", "proxy", "down", "--volumes", variables=variables)
        project.remove()
        subprocess.run(["docker", "rmi", f"{images}-nginx"], capture_output=True)


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
