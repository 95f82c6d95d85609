"""Environments shared out among processes: what happens is the same, and nothing is left."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv, VectorEnv

from tests.conftest import ENVIRONMENT, ROOT
from tests.runs import SMALL, Silent
from tests.test_run_signals import training
from training.config import Environment
from training.envs import make_vector_env
from training.run import train
from training.trainer import Trainer
from training.workers import WorkerError, WorkersVectorEnv

COUNTDOWN = Environment("own:Countdown-v0")  # episodes of random lengths
OF_COUNTDOWN = dataclasses.replace(
    SMALL, env_id="own:Countdown-v0", max_env_steps=2_000, endurance_steps=None, return_bounds=None
)

pytestmark = pytest.mark.usefixtures("own_environments")


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has waited for."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def answers(env: VectorEnv, steps: int) -> Iterator[tuple[np.ndarray, ...]]:
    actions = np.random.default_rng(0).integers(2, size=(steps, env.num_envs))
    for step in range(steps):
        yield env.step(actions[step])[:4]


def assert_same(
    ones: Iterator[tuple[np.ndarray, ...]], others: Iterator[tuple[np.ndarray, ...]]
) -> None:
    for one, other in zip(ones, others, strict=True):
        for left, right in zip(one, other, strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("workers", [2, 3, 9])
@pytest.mark.parametrize("one_episode", [True, False])
def test_the_answers_are_those_of_one_process(workers: int, one_episode: bool) -> None:
    with (
        closing(make_vector_env(COUNTDOWN, 5, one_episode=one_episode)) as alone,
        closing(
            make_vector_env(COUNTDOWN, 5, one_episode=one_episode, workers=workers)
        ) as together,
    ):
        assert isinstance(alone, SyncVectorEnv)
        assert isinstance(together, WorkersVectorEnv)
        assert together.observation_space == alone.observation_space
        assert together.action_space == alone.action_space
        for seed in (3, None, 4):
            np.testing.assert_array_equal(*(env.reset(seed=seed)[0] for env in (alone, together)))
            assert_same(answers(alone, 100), answers(together, 100))


def test_what_is_pickled_goes_on_in_new_processes() -> None:
    with closing(make_vector_env(COUNTDOWN, 5, workers=2)) as env:
        env.reset(seed=3)
        list(answers(env, 30))
        with closing(cloudpickle.loads(cloudpickle.dumps(env))) as restored:
            assert_same(answers(env, 60), answers(restored, 60))


def test_an_environment_that_gymnasium_vectorises_stays_in_one_process() -> None:
    with closing(make_vector_env(Environment("CartPole-v1"), 4, workers=2)) as env:
        assert not isinstance(env, WorkersVectorEnv)
        assert not active_children()


def test_closing_ends_the_processes() -> None:
    env = make_vector_env(COUNTDOWN, 4, workers=3)
    assert len(active_children()) == 2  # besides this one
    env.close()
    assert not active_children()


def test_a_process_that_is_killed_is_an_error_and_ends_the_others() -> None:
    env = make_vector_env(COUNTDOWN, 4, workers=3)
    env.reset(seed=0)
    active_children()[0].kill()
    with pytest.raises(WorkerError, match="has ended"):
        list(answers(env, 1_000))
    assert not active_children()


def test_a_run_is_the_same_stopped_or_not_and_in_any_number_of_processes(tmp_path: Path) -> None:
    def run(folder: Path, workers: int, *, stop_after: int | None = None) -> Trainer:
        folder.mkdir(exist_ok=True)
        trainer = Trainer(OF_COUNTDOWN, seed=0, env_workers=workers)
        with closing(trainer):
            train(
                trainer,
                folder,
                Silent(),
                stop_requested=lambda: trainer.state.update == stop_after,
            )
        return trainer

    alone = run(tmp_path / "alone", 1)
    assert alone.state.result is not None
    assert run(tmp_path / "together", 2, stop_after=11).state.result is None
    together = run(tmp_path / "together", 2)
    assert together.state.result is not None
    assert together.state.result.greedy == alone.state.result.greedy
    assert together.state.evaluation_steps == alone.state.evaluation_steps > 0
    for one, other in zip(alone.learner.state, together.learner.state, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_signal_to_all_processes_stops_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    options = ["--models", str(tmp_path / "models"), "--run-dir", str(tmp_path / "run")]
    with training(
        *options, "--env-id", "own:Slow-v0", "--num-envs", "2", "--env-workers", "2"
    ) as run:
        next(run.reports())
        parent = str(run.process.pid)
        listed = subprocess.run(
            ["pgrep", "--parent", parent], capture_output=True, text=True, check=True
        )
        everyone = list(map(int, [parent, *listed.stdout.split()]))
        for pid in everyone:
            os.kill(pid, signal.SIGTERM)
        assert run.process.wait() == 143, run.stderr.read()
    assert list((tmp_path / "run" / "checkpoints").glob("*.index"))
    end = time.monotonic() + 5
    while left := list(filter(is_running, everyone)):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_what_an_environment_raises_in_another_process_stands_on_standard_error(
    tmp_path: Path,
) -> None:
    options = ["--models", str(tmp_path / "models"), "--run-dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "training", "train", *options, "--env-id", "own:Raising-v0"]
    ended = subprocess.run(
        [*command, "--num-envs", "2", "--env-workers", "2"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "RuntimeError: out of fuel" in ended.stderr
    assert ended.stderr.endswith("Error: a process that steps environments has ended\n")
