"""What a run has learned outlives damaged files, full disks, bad numbers and odd environments."""

import dataclasses
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ENVIRONMENT, ROOT, Trained, run
from tests.runs import SMALL, Silent, new_run, resume
from training.artefact import Loaded
from training.config import Environment
from training.folder import RunError, locked, read_settings
from training.metrics import MetricsError
from training.model import Policy, initialize
from training.normalization import Normalization
from training.run import _start, train
from training.storing import reason_against_storing
from training.trainer import Trainer


@pytest.fixture
def own(own_environments: None, tmp_path: Path) -> Path:  # noqa: ARG001  # a fixture
    """A folder, with the module `own` to be imported here and in what is started."""
    return tmp_path


AFTER = ("--env-kwargs", '{"after": 900}')  # steps


def training(folder: Path, env_id: str, *options: str) -> list[str]:
    return [
        *("training", "train", "--env-id", env_id, "--models", f"{folder}/models"),
        *("--run-dir", f"{folder}/run", "--num-envs", "4", "--num-steps", "16"),
        *("--num-minibatches", "2", "--evaluation-episodes", "4", *options),
    ]


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("own:Plain-v0", None),
        # It can be stored; training reports its NaN.
        pytest.param(
            "own:NotFinite-v0", None, marks=pytest.mark.filterwarnings("ignore:.*The reward is a")
        ),
        ("CartPole-v1", None),
        ("MountainCar-v0", None),
        ("own:Locked-v0", "cannot pickle"),
        ("own:Recreated-v0", "has no attribute"),
    ],
)
@pytest.mark.usefixtures("own")
def test_a_round_trip_tells_whether_an_environment_can_be_stored(
    env_id: str, reason: str | None
) -> None:
    found = reason_against_storing(Environment(env_id))
    assert (found is None) if reason is None else reason in str(found)


@pytest.mark.parametrize("kind", ["Locked", "Recreated"])
def test_a_run_in_an_environment_that_cannot_be_stored_goes_on_and_exports(
    kind: str, own: Path
) -> None:
    options = ("--max-env-steps", "300000", "--checkpoint-interval", "2")
    arguments = training(own, f"own:{kind}-v0", *options)
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"training in {own}/run\n"
        while "is not bit-equal to one that was never stopped" not in process.stderr.readline():
            assert process.poll() is None
        while " steps, " not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read().splitlines()[-1].startswith("stopped, resume with")
    assert process.returncode == 143
    before = (own / "run" / "metrics.csv").read_text()
    assert before.count("\n") > 1
    settings = read_settings(own / "run")
    trainer = Trainer(dataclasses.replace(settings.config, max_env_steps=1), settings.seed)
    result = train(trainer, own / "run", Silent(), lambda: False, with_environments=False)
    assert result is not None
    assert (own / "run" / "metrics.csv").read_text().startswith(before)  # it did not begin again


def test_a_bad_number_ends_the_run_in_one_line_and_keeps_its_checkpoint(own: Path) -> None:
    options = ("--max-env-steps", "3000", "--checkpoint-interval", "1", "--evaluation-interval")
    finished = run(*training(own, "own:NotFinite-v0", *options, "1000", *AFTER))
    assert finished.returncode == 1
    *_, line = finished.stderr.splitlines()
    assert line.startswith("Error: after ")
    assert line.endswith(" is nan")
    assert list((own / "run" / "checkpoints").glob("*.index"))
    rows = (own / "run" / "metrics.csv").read_text()
    assert "nan" not in rows
    assert rows.count("\n") > 3


@pytest.mark.long
def test_a_signal_ends_an_evaluation_at_once(own: Path) -> None:
    options = ("--evaluation-interval", "1", "--max-episode-steps", "100000")
    arguments = training(own, "own:Slow-v0", *options, "--evaluation-episodes", "400")
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # after ten seconds of a phase, the log names it
            if "evaluating" in line:
                break
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read().splitlines()[-1].startswith("stopped, resume with")
        assert time.monotonic() - started < 8
    assert process.returncode == 143
    # Its one update is stored, though it was not evaluated, so that its row is not written yet.
    assert [path.name for path in (own / "run" / "checkpoints").glob("*.index")] == [
        "update-1.index"
    ]
    assert (own / "run" / "metrics.csv").read_text().count("\n") == 1


def stopped_after(folder: Path, update: int) -> None:
    trainer = Trainer(SMALL, seed=0)
    train(trainer, folder, Silent(), stop_requested=lambda: trainer.state.update == update)


def weights_after(folder: Path, update: int) -> list[np.ndarray]:
    trainer = Trainer(SMALL, seed=0)
    train(trainer, folder, Silent(), stop_requested=lambda: trainer.state.update >= update)
    assert trainer.state.update == update
    return [variable.numpy() for variable in trainer.learner.state]


@pytest.mark.parametrize("file", ["*.index", "*.data-*"])
def test_instead_of_a_damaged_checkpoint_the_one_before_is_used(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, whole = tmp_path / "damaged", tmp_path / "whole"
    for folder in (damaged, whole):
        folder.mkdir()
        stopped_after(folder, 10)  # there are checkpoints of updates 7 and 10
    (newest,) = (damaged / "checkpoints").glob(f"update-10{file[1:]}")
    newest.write_bytes(newest.read_bytes()[:-30] + bytes(30))
    for one, other in zip(weights_after(damaged, 12), weights_after(whole, 12), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "checkpoint 10 cannot be restored: " in capsys.readouterr().err
    for name in ("metrics.csv",):
        assert (damaged / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("damage", "number"),
    [
        (lambda rows: rows[:5], 5),
        (lambda rows: [*rows[:3], rows[4], *rows[4:]], 3),
        (lambda rows: [*rows[:-1], rows[-1][:20]], 9),
        (lambda _: [], 1),
    ],
)
def test_metrics_that_are_not_those_of_the_checkpoint_are_told(
    damage: Any, number: int, tmp_path: Path
) -> None:
    stopped_after(tmp_path, 9)
    path = tmp_path / "metrics.csv"
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    with pytest.raises(MetricsError, match=f"has no row of update {number}, which"):
        stopped_after(tmp_path, 12)


def test_a_folder_in_use_is_told_before_tensorflow_is_imported(tmp_path: Path) -> None:
    folder, _ = new_run(tmp_path)
    with locked(folder):
        started = time.monotonic()
        finished = run("training", "train", *resume(folder))
        assert time.monotonic() - started < 5
    assert finished.returncode == 2
    assert finished.stderr == f"Error: {folder} is in use: another process trains in it\n"
    with locked(folder), pytest.raises(RunError, match="in use"), locked(folder):
        pass


def test_settings_that_were_edited_are_not_believed(tmp_path: Path) -> None:
    folder, _ = new_run(tmp_path)
    stored = json.loads((folder / "run.json").read_text())
    stored["config"]["gamma"] = 0.5
    (folder / "run.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match=r"run\.json is not as this program wrote it"):
        read_settings(folder)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    # A limit for the size of each file is reached like the end of a disk, by an ordinary user too.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))

    finished = subprocess.run(
        [
            *(sys.executable, "-m", "training", "train", "--models", f"{tmp_path}/models"),
            *("--run-dir", f"{tmp_path}/run", "--checkpoint-interval", "1"),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    *_, line = finished.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "cannot be written" in line


@pytest.mark.long
def test_a_run_begins_with_the_weights_of_a_version(own: Path) -> None:
    options = ("--name", "plain", "--json", "--max-env-steps", "2000")
    finished = run(*training(own, "own:Plain-v0", *options))
    assert finished.returncode == 0, finished.stderr
    version = Path(json.loads(finished.stdout)["model_dir"])
    again = (
        *("training", "train", "--from", str(version), "--models", f"{own}/models"),
        *("--name", "plain", "--run-dir", f"{own}/again", "--json", "--max-env-steps", "64"),
    )
    refused = run(*again)
    assert refused.returncode == 2
    assert "--allow-module own" in refused.stderr
    finished = run(*again, "--allow-module", "own", "--learning-rate", "1e-12")
    assert finished.returncode == 0, finished.stderr
    second = Path(json.loads(finished.stdout)["model_dir"])
    card = json.loads((second / "assets.extra" / "policy.json").read_text())
    assert card["training"]["start_from"] == "plain/1"
    assert card["training"]["config"]["num_envs"] == 4  # the version's, not a preset's
    one, other = (
        tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        for folder in (version, second)
    )
    for key in one.get_variable_to_shape_map():
        if key.startswith("weights/"):
            np.testing.assert_allclose(one.get_tensor(key), other.get_tensor(key), atol=1e-6)
    refused = run(*again, "--allow-module", "own", "--hidden-units", "8")
    assert "hidden_units cannot be given" in refused.stderr


def test_a_run_that_begins_with_a_version_knows_the_scale_of_its_observations(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = initialize(np.random.default_rng(0), 2, 2, SMALL)
    normalization = Normalization(np.array([3, -7], np.float32), np.array([0.5, 4], np.float32))
    policy = Policy(weights, "tanh", normalization)
    version = Loaded(policy, Environment("CartPole-v1"), None, {"env_steps": 500}, 2, 2)
    monkeypatch.setattr("training.run.load", lambda _: version)
    settings = read_settings(trained.models.parent / "run")
    start = _start(settings._replace(start_from="1"), tmp_path)
    assert start is not None
    moments = start.observation_moments
    assert moments.samples == 500
    np.testing.assert_allclose(moments.mean, [3, -7])
    np.testing.assert_allclose(moments.variance, [1 / 0.5**2, 1 / 4**2])
