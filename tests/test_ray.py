"""Environments in Ray actors: what happens is the same, whichever of them die."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ENVIRONMENT, ROOT, run
from tests.runs import train_in
from tests.test_run_signals import training
from tests.test_shares import (
    COUNTDOWN,
    OF_COUNTDOWN,
    PLAIN,
    assert_a_stop_does_not_wait_for_an_evaluation,
    assert_same,
    collected,
    sample,
)
from training.config import Environment
from training.envs import make_shares
from training.evaluation import Evaluation, evaluate
from training.finite import NotFiniteError
from training.ray_cluster import Cluster, connect
from training.ray_shares import MAX_DEATHS, RayShares
from training.shares import Processes, Shares, WorkerError, Workers

pytestmark = pytest.mark.usefixtures("own_environments")


@pytest.fixture(scope="module")
def cluster(own_environments: None) -> Iterator[Cluster]:  # noqa: ARG001 - it is on the path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
        patch.setenv("RAY_AUTH_MODE", "")  # which Ray sets for a local cluster: to be restored
        patch.delenv("RAY_AUTH_MODE")
        with connect("local") as connected:
            yield connected


def actors() -> list[int]:
    """The processes of the actors that step environments."""
    command = ["pgrep", "--full", "^ray::_EnvironmentActor"]
    return list(map(int, subprocess.run(command, capture_output=True, text=True).stdout.split()))


def on_ray(
    cluster: Cluster, environment: Environment, num_envs: int, count: int = 2, **storable: bool
) -> Shares:
    workers = cluster.workers(count, **{"storable": True, **storable})
    envs = make_shares(environment, num_envs, workers=workers)
    assert isinstance(envs, RayShares)
    return envs


def train(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training", "train", *options],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 3])
def test_what_is_collected_does_not_depend_on_the_actors(cluster: Cluster, count: int) -> None:
    with (
        closing(make_shares(COUNTDOWN, 5)) as alone,
        closing(on_ray(cluster, COUNTDOWN, 5, count)) as together,
    ):
        assert_same(collected(alone, 5), collected(together, 5))


@pytest.mark.long
def test_an_evaluation_does_not_depend_on_the_actors(cluster: Cluster) -> None:
    def evaluations(workers: Workers | None) -> list[Evaluation]:
        rng = np.random.default_rng(2)
        with closing(make_shares(PLAIN, 7, one_episode=True, workers=workers)) as envs:
            return [
                evaluate(sample, PLAIN, episodes=7, deterministic=one, rng=rng, envs=envs)
                for one in (False, True)
            ]

    assert evaluations(None) == evaluations(cluster.workers(2, storable=False))


@pytest.mark.parametrize(
    "kills",
    [pytest.param(2, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.cluster)],
)
def test_what_is_collected_does_not_change_when_actors_are_killed(
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
) -> None:
    slow = Environment("own:Slow-v0")  # a rollout of two takes 0.8 seconds
    with closing(make_shares(slow, 4)) as alone:
        expected = collected(alone, kills)
    killed = [0]  # in each call so far
    with closing(on_ray(cluster, slow, 4)) as envs:
        done = threading.Event()
        call = envs.call

        def counted(*arguments: Any, **options: Any) -> list[Any]:
            answers = call(*arguments, **options)
            killed.append(0)
            return answers

        monkeypatch.setattr(envs, "call", counted)

        def kill() -> None:
            draw = random.Random(0)
            while sum(killed) < kills and not done.wait(draw.uniform(0.4, 1.2)):
                running = actors()
                if running and killed[-1] < MAX_DEATHS - 1:  # of one actor these would be too many
                    killed[-1] += 1
                    os.kill(draw.choice(running), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            rollouts = collected(envs, kills)
        finally:
            done.set()
            killer.join()
    assert sum(killed) == kills
    assert_same(expected, rollouts)
    assert capfd.readouterr().err.count("its environments continue in another") == kills


@pytest.mark.long
def test_an_actor_that_dies_each_time_is_an_error_and_ends_the_others(cluster: Cluster) -> None:
    def end(*_: Any) -> None:
        os._exit(1)

    with (
        closing(on_ray(cluster, PLAIN, 2)) as envs,
        pytest.raises(WorkerError, match="a Ray actor has ended 5 times in one call: "),
    ):
        envs.call(end)
    wait_until_none_is_left()


def test_an_actor_with_environments_that_cannot_be_stored_is_not_started_again(
    cluster: Cluster,
) -> None:
    envs = on_ray(cluster, Environment("own:Locked-v0"), 2, storable=False)
    collected(envs, 1)
    os.kill(actors()[0], signal.SIGKILL)
    with pytest.raises(WorkerError, match="its environments cannot be stored"):
        collected(envs, 1)
    wait_until_none_is_left()


def wait_until_none_is_left() -> None:
    end = time.monotonic() + 10
    while actors():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_error_names_the_environment_among_all_of_them(cluster: Cluster) -> None:
    with (
        closing(on_ray(cluster, Environment("own:NotFinite-v0", {"after": 5}), 4)) as envs,
        pytest.raises(NotFiniteError, match="the reward of environment 1 is nan"),
    ):
        collected(envs, 1)


def test_what_an_environment_raises_in_an_actor_stands_on_standard_error(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of fuel")

    envs = on_ray(cluster, PLAIN, 2)
    with pytest.raises(WorkerError, match="an environment in a Ray actor has failed"):
        envs.call(fail)
    assert "RuntimeError: out of fuel" in capfd.readouterr().err


def test_a_stop_does_not_wait_for_an_evaluation_on_a_cluster(cluster: Cluster) -> None:
    assert_a_stop_does_not_wait_for_an_evaluation(cluster.workers(2, storable=False))
    wait_until_none_is_left()


def test_a_run_is_the_same_on_ray_and_goes_on_in_processes(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = partial(train_in, OF_COUNTDOWN)
    alone = run(tmp_path / "alone", None)
    assert alone.state.result is not None
    on_two = cluster.workers(2, storable=True)
    assert run(tmp_path / "together", on_two, stop_after=11).state.result is None
    together = run(tmp_path / "together", Processes(2))
    assert together.state.result is not None
    assert together.state.result.greedy == alone.state.result.greedy
    for one, other in zip(alone.learner.state, together.learner.state, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.cluster
def test_a_signal_stops_a_run_on_ray_and_leaves_no_process(tmp_path: Path) -> None:
    slow = ["--env-id", "own:Slow-v0", "--num-envs", "2", "--ray", "local"]
    where = ["--models", str(tmp_path / "models"), "--run-dir", str(tmp_path / "run")]
    with training(*slow, *where) as run:
        next(run.reports())
        run.process.terminate()
        assert run.process.wait() == 143, run.stderr.read()
    assert list((tmp_path / "run" / "checkpoints").glob("*.index"))


@pytest.mark.long
def test_standard_output_of_a_benchmark_on_ray_is_its_json_alone(tmp_path: Path) -> None:
    options = "--seeds 1 --env-id own:Countdown-v0 --max-env-steps 2000 --ray local --json"
    ended = subprocess.run(
        [sys.executable, "-m", "training", "benchmark", *options.split(), "--output", tmp_path],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [run["seed"] for run in json.loads(ended.stdout)["runs"]] == [100]


@pytest.mark.long
def test_what_gymnasium_steps_itself_stays_in_this_process(tmp_path: Path) -> None:
    options = ["--max-env-steps", "2000", "--env-workers", "2"]
    ended = train(*options, "--models", str(tmp_path), "--run-dir", str(tmp_path / "run"))
    assert "Gymnasium steps CartPole-v1 itself, in this process\n" in ended.stderr


@pytest.mark.parametrize("command", ["train", "tune", "benchmark --seeds 1"])
def test_an_address_without_a_cluster_is_an_error_in_one_line(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    name, *options = command.split()
    ended = run("training", name, *options, "--ray", f"127.0.0.1:{port}")
    assert ended.returncode == 2
    reason = "[Errno 111] Connection refused"
    assert ended.stderr == f"Error: there is no Ray cluster at 127.0.0.1:{port}: {reason}\n"
    assert time.monotonic() - began < 10
