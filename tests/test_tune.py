"""The command `tune`: its studies are shared, pruned, stopped, killed and resumed, for real."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import combinations
from pathlib import Path
from typing import IO, Any

import click
import optuna
import pytest
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from tests.conftest import ENVIRONMENT, ROOT, run, wait_until
from training.config import TrainingConfig
from training.config_options import change, to_toml
from training.folder import read_settings
from training.options import Mistake
from training.presets import PRESETS
from training.search import POINTS, propose, searched
from training.trial import score
from training.tune_command import tune

# So small that most of a trial is compiling.
SMALL = {
    "num_envs": 4,
    "num_steps": 16,
    "num_epochs": 1,
    "num_minibatches": 1,
    "hidden_units": [8],
    "evaluation_interval": 1,
    "evaluation_episodes": 4,
    "max_env_steps": 640,
}
NAMES = ["gamma", "gae_lambda", "learning_rate", "clip_coef", "ent_coef", "max_grad_norm"]
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.fixture(scope="module")
def own(own_environments: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001  # an import
    """A folder with a small config, and the module `own` to be imported."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "small.toml").write_text(to_toml(SMALL))
    return folder


def small(kind: str = "Plain") -> TrainingConfig:
    return change(PRESETS["ppo"], {"env_id": f"own:{kind}-v0", **SMALL})


def tuning(own: Path, folder: Path, *options: str) -> list[str]:
    return [
        *("training", "tune", "--env-id", "own:Plain-v0", "--config", f"{own}/small.toml"),
        *("--seeds", "1", "--storage", f"{folder}/study.db", "--output", f"{folder}/best.toml"),
        *options,
    ]


@contextmanager
def started(*command: str) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """A command in a process group of its own, and its standard error."""
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        yield process, process.stderr


def trials_started(folder: Path) -> int:
    """The number of trials in the storage, which this does not make."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/study.db")


class Finished:
    """A study of four trials, run by two processes."""

    def __init__(self, own: Path, folder: Path) -> None:
        self.folder = folder
        finished = run(*tuning(own, folder, "--trials", "4", "--processes", "2", "--json"))
        assert finished.returncode == 0, finished.stderr
        self.summary: dict[str, Any] = json.loads(finished.stdout)
        self.progress = finished.stderr.splitlines()
        self.trials = study_of(folder).trials


@pytest.fixture(scope="module")
def finished(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(own, tmp_path_factory.mktemp("study"))


def test_a_study_has_as_many_trials_as_wanted_and_reports_each(finished: Finished) -> None:
    assert [trial.number for trial in finished.trials] == list(range(4))
    assert {trial.state for trial in finished.trials} <= set(FINISHED)
    assert len(finished.progress) == 4
    reported = sorted(line.partition(":")[0] for line in finished.progress)
    assert reported == [f"trial {number}" for number in range(4)]
    summary = finished.summary
    assert list(summary) == ["study", "storage", "trials", "best", "config"]
    assert summary["study"] == "small"
    assert sum(summary["trials"].values()) == 4
    complete = [one for one in finished.trials if one.state is TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.value or 0.0)
    assert (summary["best"]["trial"], summary["best"]["score"]) == (best.number, best.value)


def test_processes_share_a_study_and_propose_different_values(finished: Finished) -> None:
    def overlap(one: FrozenTrial, other: FrozenTrial) -> bool:
        start, complete = one.datetime_start, one.datetime_complete
        other_start, other_complete = other.datetime_start, other.datetime_complete
        assert start is not None
        assert complete is not None
        assert other_start is not None
        assert other_complete is not None
        return start < other_complete and other_start < complete

    assert any(overlap(*pair) for pair in combinations(finished.trials, 2))
    assert len({trial.params["learning_rate"] for trial in finished.trials}) == 4
    assert all(set(trial.params) == {*NAMES[1:], "one_minus_gamma"} for trial in finished.trials)


def test_the_score_is_the_mean_of_what_was_reported(finished: Finished) -> None:
    for trial in finished.trials:
        if trial.state is TrialState.COMPLETE:
            values = trial.intermediate_values
            assert list(values) == list(range(POINTS))
            assert trial.value == pytest.approx(sum(values.values()) / POINTS)


def test_train_takes_the_result_as_its_config(finished: Finished, tmp_path: Path) -> None:
    path = finished.folder / "best.toml"
    best = finished.trials[finished.summary["best"]["trial"]]
    expected = propose(small(), searched(small(), SMALL), FixedTrial(best.params))
    assert {name: getattr(expected, name) for name in NAMES} != {
        name: getattr(small(), name) for name in NAMES
    }
    assert tomllib.loads(path.read_text())["learning_rate"] == expected.learning_rate
    options = ("--models", f"{tmp_path}/models", "--run-dir", f"{tmp_path}/run")
    with started("training", "train", "--config", str(path), *options) as (process, progress):
        assert progress.readline() == f"training in {tmp_path}/run\n"
        process.kill()
    assert read_settings(tmp_path / "run").config == expected


def test_a_study_goes_on_where_it_was_and_prunes_what_is_worse(
    own: Path, finished: Finished
) -> None:
    perfect = optuna.create_trial(
        value=8.0,
        params=finished.trials[0].params,
        distributions=finished.trials[0].distributions,
        intermediate_values=dict.fromkeys(range(POINTS), 8.0),
    )
    study_of(finished.folder).add_trials([perfect] * 8)
    again = run(*tuning(own, finished.folder, "--trials", "13"))
    assert again.returncode == 0, again.stderr
    assert again.stderr == "trial 12: pruned, worse than others\n"
    *before, last = study_of(finished.folder).trials
    assert before[:4] == finished.trials
    # At the first point that is not for warming up.
    assert len(last.intermediate_values) == POINTS // 10 + 1
    assert "score 8.0; trials: " in again.stdout
    nothing = run(*tuning(own, finished.folder, "--trials", "13"))
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert nothing.stdout == again.stdout


@pytest.mark.long
def test_after_a_kill_the_same_command_runs_the_trials_that_are_missing(
    own: Path, tmp_path: Path
) -> None:
    with started(*tuning(own, tmp_path)) as (process, progress):
        assert progress.readline().startswith("trial 0: score ")
        wait_until(lambda: trials_started(tmp_path) > 1)
        process.kill()
        progress.read()  # until no process has it any more
    before = study_of(tmp_path).trials
    complete = [trial for trial in before if trial.state in FINISHED]
    assert before[-1].state is TrialState.RUNNING
    wanted = len(complete) + 1
    again = run(*tuning(own, tmp_path, "--trials", str(wanted)))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("\n") == 1
    after = study_of(tmp_path).trials
    assert [trial for trial in after if trial in complete] == complete
    assert len([trial for trial in after if trial.state in FINISHED]) == wanted
    assert after[len(before) - 1].state is TrialState.FAIL
    assert after[-1].params not in [trial.params for trial in complete]


def test_ctrl_c_ends_processes_that_have_just_started(own: Path, tmp_path: Path) -> None:
    with started(*tuning(own, tmp_path, "--processes", "2")) as (process, progress):
        wait_until((tmp_path / "study.db").exists)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        # It is read to its end, which comes when no process has it any more.
        assert progress.read() == "stopped; the same command continues the study\n"
    assert process.returncode == 130


@pytest.mark.long
def test_a_study_is_in_use_until_sigterm_ends_its_processes(own: Path, tmp_path: Path) -> None:
    long = ("--processes", "2", "--max-env-steps", "10000000")
    with started(*tuning(own, tmp_path, *long)) as (process, progress):
        wait_until(lambda: trials_started(tmp_path) > 1)
        second = run(*tuning(own, tmp_path, *long))
        in_use = f"Error: {tmp_path}/study.db is in use: another process tunes in it\n"
        assert (second.returncode, second.stdout, second.stderr) == (2, "", in_use)
        process.terminate()
        assert progress.read() == "stopped; the same command continues the study\n"
    assert process.returncode == 143


@pytest.mark.usefixtures("own")
@pytest.mark.filterwarnings("ignore:.*The reward is a NaN")
def test_what_learns_from_nan_is_pruned_with_the_reason() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: score(trial, small("NotFinite"), ["gamma"], 1), n_trials=1)
    (trial,) = study.trials
    assert trial.state is TrialState.PRUNED
    reason = "step 1 of an evaluation: the reward of environment 0 is nan"
    assert trial.user_attrs["reason"] == reason


def test_where_no_trial_has_a_score_the_reason_is_told(own: Path, tmp_path: Path) -> None:
    study = optuna.create_study(study_name="small", storage=f"sqlite:///{tmp_path}/study.db")
    study.optimize(prune_with_a_reason, n_trials=1)
    finished = run(*tuning(own, tmp_path, "--trials", "1"))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr == "Error: no trial has a score: the reward is nan\n"


def prune_with_a_reason(trial: optuna.Trial) -> float:
    trial.set_user_attr("reason", "the reward is nan")
    raise optuna.TrialPruned


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of signals, which a command sets, as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-envs", "8"], "has another value of num_envs: give the new study another --name"),
        (["--seeds", "3"], "has another value of seeds: "),
        (["--learning-rate", "0.1"], "has another value of learning_rate, searched: "),
        (["--storage", "README.md"], "README.md cannot be used: "),
        (["--storage", "/proc/nothing/study.db"], "/proc/nothing cannot be written"),
        (["--storage", "/proc/version"], "/proc cannot be written"),
        (["--storage", "{tmp}/a?b.db"], "cannot be a storage"),
        (["--output", "/proc/nothing/best.toml"], "/proc/nothing cannot be written"),
        (["--name", "../small"], "letters, digits"),
        (["--env-id", "Nothing-v0"], "Nothing"),
        (["--env-kwargs", '{"level": null}'], "env_kwargs contain a null"),
        (["--trials", "0"], "--trials"),
        ([f"--{name.replace('_', '-')}=1" for name in NAMES], "every hyperparameter"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    own: Path, finished: Finished, options: list[str], message: str, tmp_path: Path
) -> None:
    arguments = [option.replace("{tmp}", str(tmp_path)) for option in options]
    with pytest.raises(click.ClickException) as refused:
        tune.main(tuning(own, finished.folder, *arguments)[2:], standalone_mode=False)
    assert refused.value.exit_code == 2
    assert message in refused.value.format_message()
    assert "\n" not in refused.value.format_message()


@pytest.mark.usefixtures("handlers")
def test_without_optuna_one_line_says_what_to_install(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("study", "tune"):
        monkeypatch.delitem(sys.modules, f"training.{name}", raising=False)
    with pytest.raises(Mistake, match=r"^tuning needs actor-critic\[tune\]: .*optuna"):
        tune.main(tuning(own, tmp_path)[2:], standalone_mode=False)


@pytest.mark.usefixtures("own")
def test_a_score_is_the_mean_of_its_seeds_and_a_seed_repeats() -> None:
    def scored(seeds: int) -> float:
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial({"learning_rate": 0.01})
        study.optimize(lambda trial: score(trial, small(), ["learning_rate"], seeds), n_trials=1)
        return study.best_value

    assert scored(1) == scored(1)
    assert scored(2) != scored(1)
    assert 4.0 < scored(2) < 8.0  # better than by chance
