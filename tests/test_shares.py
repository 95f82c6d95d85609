"""Environments in several processes: what happens is the same, and nothing is left."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from contextlib import closing
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import run
from tests.runs import SMALL, train_in
from tests.test_run_signals import training
from training.config import Environment
from training.envs import make_shares
from training.errors import StopRequestedError
from training.evaluation import Evaluation, evaluate
from training.finite import NotFiniteError, require_finite
from training.model import Policy, initialize
from training.rollout import collect, reset
from training.shares import OneShare, Processes, ProcessShares, Shares, WorkerError, Workers
from training.types import FloatArray

COUNTDOWN = Environment("own:Countdown-v0")  # episodes of random lengths
PLAIN = Environment("own:Plain-v0")
OF_COUNTDOWN = dataclasses.replace(
    SMALL, env_id="own:Countdown-v0", max_env_steps=2_000, endurance_steps=None, return_bounds=None
)

pytestmark = pytest.mark.usefixtures("own_environments")


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has waited for."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def processes(count: int) -> Processes | None:
    return Processes(count) if count else None


def sample(seen: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Right for most observations of `Plain`."""
    return np.concatenate([0.3 - seen, seen - 0.3], axis=1), seen[:, 0]


def network() -> Policy:
    return Policy(initialize(np.random.default_rng(1), 1, 2, SMALL), "tanh")


def collected(envs: Shares, rollouts: int) -> list[np.ndarray]:
    state, rng = reset(envs, seed=3), np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    for _ in range(rollouts):
        rollout, state = collect(envs, state, network(), rng, 40)
        arrays += [*rollout, *state]
    return arrays


def assert_same(ones: list[np.ndarray], others: list[np.ndarray]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_what_is_collected_does_not_depend_on_the_processes(workers: int) -> None:
    with (
        closing(make_shares(COUNTDOWN, 5)) as alone,
        closing(make_shares(COUNTDOWN, 5, workers=processes(workers))) as together,
    ):
        assert isinstance(alone, OneShare)
        assert isinstance(together, ProcessShares)
        assert_same(collected(alone, 5), collected(together, 5))


@pytest.mark.parametrize("deterministic", [pytest.param(True, marks=pytest.mark.long), False])
def test_an_evaluation_does_not_depend_on_the_processes(deterministic: bool) -> None:
    def evaluations(workers: int) -> list[Evaluation]:
        rng = np.random.default_rng(2)
        with closing(make_shares(PLAIN, 7, one_episode=True, workers=processes(workers))) as envs:
            return [
                evaluate(sample, PLAIN, episodes=7, deterministic=deterministic, rng=rng, envs=envs)
                for _ in range(3)
            ]

    alone = evaluations(0)
    assert alone[0].mean != alone[1].mean
    assert alone == evaluations(3)


def test_what_is_pickled_goes_on_in_new_processes() -> None:
    with closing(make_shares(COUNTDOWN, 5, workers=Processes(2))) as envs:
        rng, policy = np.random.default_rng(0), network()
        _, state = collect(envs, reset(envs, seed=3), policy, rng, 30)
        with closing(
            make_shares(COUNTDOWN, 5, workers=Processes(2), pickled=envs.pickled())
        ) as restored:
            one, other = (
                collect(each, state, policy, np.random.default_rng(1), 60)[0]
                for each in (envs, restored)
            )
            assert_same(list(one), list(other))


def test_an_environment_that_gymnasium_vectorises_stays_in_this_process() -> None:
    with closing(make_shares(Environment("CartPole-v1"), 4, workers=Processes(2))) as envs:
        assert isinstance(envs, OneShare)
        assert not active_children()


def test_closing_ends_the_processes() -> None:
    envs = make_shares(COUNTDOWN, 4, workers=Processes(3))
    assert len(active_children()) == 3
    envs.close()
    assert not active_children()


def test_a_process_that_is_killed_is_an_error_and_ends_the_others() -> None:
    envs = make_shares(COUNTDOWN, 4, workers=Processes(3))
    reset(envs, seed=0)
    active_children()[0].kill()
    with pytest.raises(WorkerError, match="has ended"):
        collected(envs, 10)
    assert not active_children()


@pytest.mark.parametrize("workers", [None, Processes(2)])
def test_an_environment_that_ends_the_program_is_an_error(workers: Workers | None) -> None:
    with closing(make_shares(Environment("own:Exiting-v0"), 4, workers=workers)) as envs:
        reset(envs, seed=0)
        with pytest.raises(WorkerError, match=r"ended the program: SystemExit\(0\)"):
            collected(envs, 10)


def test_an_error_names_the_environment_among_all_of_them() -> None:
    environment = Environment("own:NotFinite-v0", {"after": 5})
    with (
        closing(make_shares(environment, 4, workers=Processes(2))) as envs,
        pytest.raises(NotFiniteError, match="the reward of environment 1 is nan"),
    ):
        collected(envs, 1)
    with pytest.raises(NotFiniteError, match="the reward of environment 3 is nan"):
        require_finite(np.array([0.0, np.nan]), "the reward", "step 1", 2)


def assert_a_stop_does_not_wait_for_an_evaluation(workers: Workers) -> None:
    slow, started = Environment("own:Slow-v0"), time.monotonic()
    with (
        closing(make_shares(slow, 200, one_episode=True, workers=workers)) as envs,
        pytest.raises(StopRequestedError),
    ):
        evaluate(
            sample,
            slow,
            episodes=200,
            deterministic=True,
            rng=np.random.default_rng(0),
            envs=envs,
            stop_requested=lambda: time.monotonic() - started > 2,
        )
    assert time.monotonic() - started < 6  # to its end it would take 8 seconds


def test_a_stop_does_not_wait_for_an_evaluation_in_other_processes() -> None:
    assert_a_stop_does_not_wait_for_an_evaluation(Processes(2))
    assert not active_children()


def test_a_run_is_the_same_stopped_or_not_and_in_any_number_of_processes(tmp_path: Path) -> None:
    run = partial(train_in, OF_COUNTDOWN)
    alone = run(tmp_path / "alone", None)
    assert alone.state.result is not None
    assert run(tmp_path / "together", Processes(2), stop_after=11).state.result is None
    together = run(tmp_path / "together", Processes(2))
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
    where = ("--models", str(tmp_path / "models"), "--run-dir", str(tmp_path / "run"))
    options = ("--env-id", "own:Raising-v0", "--num-envs", "2", "--env-workers", "2")
    ended = run("training", "train", *where, *options)
    assert ended.returncode == 1
    assert "RuntimeError: out of fuel" in ended.stderr
    assert ended.stderr.endswith("Error: a process that steps environments has ended\n")
