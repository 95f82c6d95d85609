"""Missing modules: the program's are reported in one line, an environment's with a traceback."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.conftest import ENVIRONMENT, ROOT

OWN = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Own(CartPoleEnv):
    def step(self, action):
        import a_map_of_its_own

gym.register("Own-v0", entry_point=Own, max_episode_steps=9, reward_threshold=9.0)
"""


def train(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Train in a process that has first run some code."""
    start = f"{code}; from training.__main__ import main; main()"
    return subprocess.run(
        [
            *(sys.executable, "-c", start, "train"),
            *("--models", f"{folder}/models", "--run-dir", f"{folder}/run", *options),
        ],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("package", ["click", "gymnasium", "tensorflow"])
def test_a_package_that_the_program_needs_is_one_line(package: str, tmp_path: Path) -> None:
    finished = train(tmp_path, f"import sys; sys.modules[{package!r}] = None")
    assert (finished.returncode, finished.stdout) == (2, "")
    *_, line = finished.stderr.splitlines()
    assert line == f"Error: {package} is not installed: install actor-critic[train]"
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_and_its_metadata_training_leaves_nothing(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    hidden = {"tensorflow", "tensorflow_cpu"}
    for path in Path(click.__file__).parent.parent.iterdir():
        if path.name.partition("-")[0] not in hidden:
            (packages / path.name).symlink_to(path)
    finished = subprocess.run(
        [sys.executable, "-S", "-m", "training", "train"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{packages}"},
        capture_output=True,
        text=True,
    )
    line = "Error: tensorflow is not installed: install actor-critic[train]\n"
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "", line)
    assert list(tmp_path.iterdir()) == [packages]


def test_a_module_that_a_step_of_an_environment_needs_is_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "own_maps.py").write_text(OWN)
    finished = train(tmp_path, "pass", "--env-id", "own_maps:Own-v0")
    assert finished.returncode == 1
    assert "own_maps.py" in finished.stderr
    assert finished.stderr.endswith("ModuleNotFoundError: No module named 'a_map_of_its_own'\n")
