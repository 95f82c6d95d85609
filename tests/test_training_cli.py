"""The training command line: one clear line for every mistake, and honest exit statuses."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT, Trained, run
from tests.runs import SMALL, new_run, resume, small_settings
from training.config_options import to_values
from training.folder import claim, locked
from training.presets import PRESETS


def error_of(*arguments: str) -> str:
    """The one line on standard error of a command that is used wrongly."""
    finished = run("training", *arguments)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    return finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--no-such-option"], "No such option"),
        (["train", "--preset", "dqn"], "'dqn' is not one of"),
        (["train", "--seed", "-1"], "--seed"),
        (["train", "--seed", "x"], "--seed"),
        (["train", "--max-env-steps", "0"], "max_env_steps: Expected `int` >= 1"),
        (["train", "--max-env-steps", "none"], "'none' is not INTEGER"),
        (["train", "--return-bounds", "5"], "--return-bounds"),
        (["train", "--return-bounds", "5", "1"], "the smaller one first"),
        (["train", "--return-bounds", "0", "nan"], "return_bounds is nan"),
        (["train", "--env-id", "Nope-v0"], "Nope"),
        (["train", "--env-id", "HalfCheetah-v5", "--env-kwargs", "{}"], "HalfCheetah-v5 cannot be"),
        (["train", "--env-kwargs", "{"], "'{' is not JSON"),
        (["train", "--env-kwargs", '{"mass": NaN}'], "env_kwargs cannot be stored as JSON"),
        (["train", "--env-kwargs", "[" * 50_000], "is not JSON"),
        (["train", "--wrapper", "nope"], "wrappers[0]"),
        (["train", "--wrapper", "no.such:thing"], "No module named 'no'"),
        (["train", "--gamma", "x"], "'x' is not NUMBER"),
        (["train", "--gamma", "1.5"], "gamma: Expected `float` <= 1"),
        (["train", "--hidden-units", "64,"], "--hidden-units"),
        (["train", "--action-names", "left"], "action_names has 1 names, CartPole-v1 has 2"),
        (["train", "--config", "Makefile"], "Makefile cannot be read"),
        (["train", "--config", "no/such/file.toml"], "no/such/file.toml"),
        (["train", "--preset", "ppo", "--from", "tests"], "--preset cannot be given"),
        (["train", "--from", "tests"], "tests has no config to continue with"),
        (["train", "--env-id", "Pendulum-v1"], "Pendulum-v1 is not supported"),
        (["train", "--name", "../escape"], "--name"),
        (["train", "--name", ".hidden"], "--name"),
        (["train", "--resume"], "--resume needs the --run-dir"),
        (["train", "--models", "/proc/nothing"], "/proc/nothing/cartpole cannot be written"),
        (["train", "--models", "README.md"], "README.md"),
        (["render", "tests", "--output", "x.gif"], "tests cannot be loaded: "),
        (["render", "tests"], "--output"),
        (["benchmark"], "--seeds"),
        (["benchmark", "--seeds", "0"], "--seeds"),
        (["evaluate", "no/such/folder"], "no/such/folder"),
        (["evaluate", "tests"], "tests cannot be loaded: "),
        (["no-such-command"], "No such command"),
        ([], "Missing command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    assert message in error_of(*arguments)


@pytest.mark.parametrize(("observed", "actions"), [(5, 2), (4, 3)])
def test_a_version_for_other_sizes_is_refused_before_anything_is_made(
    observed: int, actions: int, tmp_path: Path
) -> None:
    card = {
        "observations": {"names": [f"observation_{i}" for i in range(observed)]},
        "actions": {"names": [f"action_{i}" for i in range(actions)]},
        "training": {"config": to_values(PRESETS["ppo"])},
    }
    version = tmp_path / "version" / "1"
    (version / "assets.extra").mkdir(parents=True)
    (version / "assets.extra" / "policy.json").write_text(json.dumps(card))
    _, *options = train(tmp_path)
    assert error_of(*options, "--from", str(version)) == (
        "Error: CartPole-v1 has 4 numbers in an observation and 2 actions, the policy of "
        f"{version} has {observed} and {actions}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["version"]


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", "7"), ("--preset", "ppo"), ("--name", "other")]
)
def test_a_resumed_run_keeps_its_settings(option: str, value: str, tmp_path: Path) -> None:
    folder, _ = new_run(tmp_path)
    message = error_of("train", *resume(folder), option, value)
    assert f"{option} cannot be given" in message


def test_a_resumed_run_needs_a_budget(tmp_path: Path) -> None:
    folder, _ = new_run(tmp_path)
    message = error_of("train", *resume(folder), "--max-env-steps", "none")
    assert "'none' is not INTEGER" in message


def test_a_run_in_the_models_own_folder_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder, budget = tmp_path / "novice", ("--max-env-steps", "1000")
    named = ("--models", str(tmp_path), "--name", "novice", "--run-dir", f"{tmp_path}/./novice")
    message = f"Error: {folder} is the folder of the model: a run needs one of its own\n"
    assert error_of("train", *named, *budget) == message
    assert not folder.exists()
    config = dataclasses.replace(SMALL, max_env_steps=1_000)
    with locked(folder):
        claim(folder, small_settings(tmp_path)._replace(config=config, allow_unsolved=False))
    assert error_of("train", *resume(folder)) == message


def test_a_run_that_cannot_be_resumed_is_a_mistake(tmp_path: Path) -> None:
    assert "holds no run" in error_of("train", *resume(tmp_path / "nothing"))
    folder, _ = new_run(tmp_path)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "update-7"')
    (folder / "checkpoints" / "update-7.index").write_bytes(b"half")
    finished = run("training", "train", *resume(folder))
    assert finished.returncode == 2
    started, *_, error = finished.stderr.splitlines()  # on a slow machine with progress between
    assert started == f"training in {folder}"
    assert error.startswith("Error: ")
    assert "cannot be restored" in error


def test_a_return_outside_the_bounds_ends_the_run(tmp_path: Path) -> None:
    options = ("--max-env-steps", "1000", "--return-bounds", "-1", "5")
    finished = run(*train(tmp_path), *options)
    assert finished.returncode == 2
    assert re.search(r"returned \d+, outside the bounds -1 to 5\n", finished.stderr)


def train(folder: Path) -> list[str]:
    """The command that leaves nothing outside the folder."""
    return ["training", "train", "--models", f"{folder}/models", "--run-dir", f"{folder}/run"]


def test_unsolved_exits_3_and_exports_nothing(tmp_path: Path) -> None:
    finished = run(*train(tmp_path), "--max-env-steps", "1000")
    assert finished.returncode == 3, finished.stderr
    assert "not solved" in finished.stdout
    assert "nothing exported" in finished.stdout
    assert list(tmp_path.rglob("saved_model.pb")) == []


def test_allow_unsolved_exports_and_the_card_says_so(tmp_path: Path) -> None:
    finished = run(
        *(*train(tmp_path), "--name", "novice"),
        *("--max-env-steps", "1000", "--allow-unsolved", "--json"),
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["solved"] is False
    model_dir = tmp_path / "models" / "novice" / "1"
    assert summary["model_dir"] == str(model_dir)
    card = json.loads((model_dir / "assets.extra" / "policy.json").read_text())
    assert card["solved"] is False


def test_progress_goes_to_standard_error_in_plain_lines(tmp_path: Path) -> None:
    finished = run(*train(tmp_path))
    assert finished.returncode == 0
    assert "\r" not in finished.stderr
    folder, *lines = finished.stderr.splitlines()
    assert folder == f"training in {tmp_path}/run"
    updates = [line for line in lines if " steps" in line]  # a phase of 10 s has a line too
    assert all("steps/s" in line for line in updates[1:])  # the first has nothing before it
    assert "sampled" in updates[-1]
    assert "greedy" in updates[-1]
    assert finished.stdout.startswith("solved\n")


@pytest.mark.long
def test_a_run_without_evaluations_still_shows_that_it_goes_on(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", *train(tmp_path), "--preset", "notebook"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            # Read from the pipe while it runs: a buffered line would come with the end only.
            assert process.stderr.readline() == f"training in {tmp_path}/run\n"
            assert (tmp_path / "run" / "run.json").exists()
            for _ in range(2):
                line = process.stderr.readline()
                assert float(line.split()[0]) > 0
                assert "sampled" not in line  # the notebook evaluates nothing for half a minute
        finally:
            process.kill()


def test_evaluate_agrees_with_the_card(trained: Trained) -> None:
    finished = run("training", "evaluate", str(trained.model_dir), "--episodes", "50", "--json")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["environment"] == "CartPole-v1"
    for kind in ("greedy", "sampled"):
        assert result[kind]["episodes"] == 50
        assert result[kind]["mean"] > 450.0


def test_the_preset_of_lunarlander_trains_and_exports_with_its_extra(tmp_path: Path) -> None:
    budget = ("--max-env-steps", "2000", "--evaluation-episodes", "3", "--allow-unsolved")
    finished = run(*train(tmp_path), "--preset", "lunarlander", *budget, "--json")
    assert finished.returncode == 0, finished.stderr
    extra = Path(json.loads(finished.stdout)["model_dir"]) / "assets.extra"
    card = json.loads((extra / "policy.json").read_text())
    assert (card["environment"], card["reward_threshold"]) == ("LunarLander-v3", 200.0)
    assert card["robustness"] == {}
    assert (extra / "episode.gif").exists()
