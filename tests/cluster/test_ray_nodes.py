"""A Ray cluster of several nodes, some of which are lost or are not like this machine."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.conftest import ENVIRONMENT, ROOT, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("own_environments")]

PATHS = f"{ROOT / 'tests' / 'environments'}:{ROOT}"


@contextmanager
def nodes(*environments: dict[str, str]) -> Iterator[Cluster]:
    """A head without processors, and a node of two processors for each environment."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for variables in environments:
            cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": PATHS, **variables})
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def command(*arguments: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    # Elsewhere than in the checkout, whose path Ray would put before that of its nodes.
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, "PYTHONPATH": PATHS, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], status: int) -> tuple[str, str]:
    output, errors = process.communicate(timeout=200)
    assert process.returncode == status, errors
    return output, errors


def lose_a_node(
    cluster: Cluster, has_started: Callable[[], bool], process: subprocess.Popen[str]
) -> None:
    """Kill all processes of the last node as soon as the work has started."""
    while not has_started():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)


def test_a_run_does_not_change_when_a_node_is_lost(tmp_path: Path) -> None:
    def options(run: str) -> list[str]:
        given = "--env-id own:Slow-v0 --num-envs 4 --num-steps 32 --max-env-steps 3000"
        return [
            *("train", *given.split(), "--evaluation-episodes", "4", "--allow-unsolved"),
            *("--checkpoint-interval", "1"),  # which the metrics are written with
            *("--models", str(tmp_path / run / "models"), "--run-dir", str(tmp_path / run / "run")),
        ]

    def metrics(run: str) -> str:
        path = tmp_path / run / "run" / "metrics.csv"
        return path.read_text() if path.exists() else ""

    ended(command(*options("alone"), cwd=tmp_path), 0)
    with nodes({}, {}) as cluster:
        together = command(*options("together"), "--ray", cluster.address, cwd=tmp_path)
        began = time.monotonic()
        lose_a_node(cluster, lambda: metrics("together").count("\n") > 3, together)
        lost = time.monotonic()
        _, errors = ended(together, 0)
        after = time.monotonic() - lost
        sys.stdout.write(f"a node lost after {lost - began:.1f} s, {after:.1f} s more to the end\n")
    assert "its environments continue in another" in errors
    assert metrics("together") == metrics("alone")


def test_the_table_of_a_benchmark_does_not_change_when_a_node_is_lost(tmp_path: Path) -> None:
    def table(run: str) -> list[dict[str, str]]:
        with (tmp_path / run / "ppo.csv").open(newline="") as file:
            return [{**row, "seconds": ""} for row in csv.DictReader(file)]

    def options(run: str) -> list[str]:
        given = "benchmark --seeds 6 --env-id own:Countdown-v0 --max-env-steps 60000"
        return [*given.split(), "--output", str(tmp_path / run), "--json"]

    ended(command(*options("alone"), cwd=tmp_path), 0)
    with nodes({}, {}) as cluster:
        together = command(*options("together"), "--ray", cluster.address, cwd=tmp_path)
        lose_a_node(cluster, lambda: bool(running("ray::call")), together)
        output, _ = ended(together, 0)
    assert len(json.loads(output)["runs"]) == 6
    assert table("together") == table("alone")


def running(name: str) -> list[int]:
    found = subprocess.run(["pgrep", "--full", f"^{name}"], capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


def test_a_study_has_all_its_trials_when_a_node_is_lost(tmp_path: Path) -> None:
    given = "tune --trials 8 --seeds 1 --env-id own:Countdown-v0 --max-env-steps 20000 --json"
    with nodes({}, {}) as cluster:
        tune = command(*given.split(), "--ray", cluster.address, cwd=tmp_path)
        lose_a_node(cluster, lambda: bool(running("ray::_train")), tune)
        output, errors = ended(tune, 0)
    counts = json.loads(output)["trials"]
    assert counts["complete"] + counts["pruned"] == 8, errors
    assert counts["fail"] == 0


def test_an_evaluation_on_a_cluster_is_that_of_one_process(tmp_path: Path) -> None:
    given = "train --env-id own:Countdown-v0 --max-env-steps 4000 --allow-unsolved --name own"
    ended(command(*given.split(), cwd=tmp_path), 0)
    evaluate = ["evaluate", "models/own/1", "--episodes", "50", "--allow-module", "own", "--json"]
    alone, _ = ended(command(*evaluate, cwd=tmp_path), 0)
    with nodes({}, {}) as cluster:
        together, _ = ended(command(*evaluate, "--ray", cluster.address, cwd=tmp_path), 0)
    assert json.loads(together) == json.loads(alone)


def changed(folder: Path, name: str, old: str, new: str) -> dict[str, str]:
    """The variables of a node whose code differs in one file, which is new where `old` is empty."""
    for package in ("training", "serving"):
        shutil.copytree(ROOT / package, folder / package)
    shutil.copy(ROOT / "tests" / "environments" / "own.py", folder)
    (folder / name).parent.mkdir(exist_ok=True)
    text = (folder / name).read_text() if old else ""
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("training/rollout.py", "T, N", "N, T", "the code of training is "),
        ("own.py", "Box(-1, 1", "Box(-2, 2", "the code of own is "),
        ("numpy-9.dist-info/METADATA", "", "Name: numpy\nVersion: 9\n", "numpy is 9 there, "),
        ("own.py", "import multiprocessing", "import nothing", "the code of own is missing "),
    ],
)
def test_a_node_that_is_not_like_this_machine_is_an_error_that_names_it(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    other = changed(tmp_path / "other", name, old, new)
    options = ["train", "--env-id", "own:Plain-v0"]
    with nodes({}, other) as cluster:
        _, errors = ended(command(*options, "--ray", cluster.address, cwd=tmp_path), 2)
    assert errors.startswith("Error: Ray's node ")
    assert f" differs: {message}" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_an_actor_does_not_go_on_where_the_code_is_another(tmp_path: Path) -> None:
    other = changed(tmp_path / "other", "training/rollout.py", "T, N", "N, T")
    options = "train --env-id own:Slow-v0 --num-envs 2 --num-steps 32 --checkpoint-interval 1"
    metrics = tmp_path / "runs" / "cartpole" / "1" / "metrics.csv"
    with nodes({}) as cluster:
        train = command(*options.split(), "--ray", cluster.address, cwd=tmp_path)
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 1)
        (alike,) = cluster.worker_nodes
        cluster.add_node(num_cpus=2, env_vars=other)
        cluster.remove_node(alike, allow_graceful=False)
        _, errors = ended(train, 1)
    assert "the node of this actor has other code of `training`" in errors
    assert errors.endswith("Error: an environment in a Ray actor has failed\n")


@contextmanager
def serving(program: list[str], port: int, **variables: str) -> Iterator[None]:
    """A program that listens on a port, for as long as it is looked at."""
    with subprocess.Popen(
        program,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: is_open(port))
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_a_cluster_of_another_version_is_an_error_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    ray = [f"{ROOT}/.cluster/bin/ray", "start", "--head", "--num-cpus=1", f"--port={port}"]
    without_token = {"RAY_AUTH_MODE": "disabled"}
    with serving([*ray, "--include-dashboard=false", "--block"], port, **without_token):
        train = command("train", "--ray", f"127.0.0.1:{port}", cwd=tmp_path, **without_token)
        _, errors = ended(train, 2)
    assert errors.startswith(f"Error: no Ray cluster can be used at 127.0.0.1:{port}: Version mis")
    assert "2.59.0" in errors
    assert "2.60.0" in errors
    assert errors.count("\n") == 1


def test_another_server_is_no_cluster(tmp_path: Path) -> None:
    port = free_port()
    server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with serving(server, port):
        _, errors = ended(command("train", "--ray", f"127.0.0.1:{port}", cwd=tmp_path), 2)
    address = f"127.0.0.1:{port}"
    assert errors == f"Error: there is no Ray cluster at {address}: something else answers there\n"


def test_a_cluster_with_another_token_is_an_error(tmp_path: Path) -> None:
    port = free_port()
    ray = [f"{Path(sys.executable).parent}/ray", "start", "--head", f"--port={port}", "--block"]
    with serving(ray, port, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 32):
        options = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 32}
        train = command("train", "--ray", f"127.0.0.1:{port}", cwd=tmp_path, **options)
        _, errors = ended(train, 2)
    last = errors.splitlines()[-1]  # after a warning of Ray's own
    assert last.startswith(f"Error: no Ray cluster can be used at 127.0.0.1:{port}: ")
    assert last.endswith(" RAY_AUTH_TOKEN is wrong")
