"""The pictures, opened the way that others open them."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from tests.conftest import ENVIRONMENT, ROOT, Trained, run
from training.config import Environment
from training.errors import TrainingError
from training.pictures import Pictures, RenderError, draw_learning_curve, record_episode
from training.shares import WorkerError
from training.types import FloatArray

# The first three of matplotlib's default colours.
BLUE, ORANGE, GREEN = (31, 119, 180), (255, 127, 14), (44, 160, 44)
GRAY = (128, 128, 128)

METRICS = [
    {"env_steps": 100.0, "running_return": 10.0},
    {"env_steps": 200.0, "running_return": 20.0, "sampled_return": 100.0},
    {"env_steps": 300.0, "running_return": 30.0, "sampled_return": 480.0, "greedy_return": 500.0},
]


def lean(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Push towards the side the pole leans to: falls after some dozens of steps."""
    angle = observations[:, 2]
    return np.stack([-1e3 * angle, 1e3 * angle], axis=1), angle


def stand_still(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Acrobot's torque of 0: swings until the time limit of 500 steps."""
    logits = np.zeros((len(observations), 3), np.float32)
    logits[:, 1] = 1.0
    return logits, observations[:, 0]


def pixels(path: Path) -> dict[tuple[int, int, int], int]:
    """How many pixels there are of each colour of a PNG."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (840, 480)
        colours, counts = np.unique(
            np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0, return_counts=True
        )
    return {
        (int(red), int(green), int(blue)): int(count)
        for (red, green, blue), count in zip(colours, counts, strict=True)
    }


def test_the_learning_curve_has_a_line_for_each_kind_of_return(tmp_path: Path) -> None:
    path = tmp_path / "learning_curve.png"
    draw_learning_curve(METRICS, 475.0, path)
    drawn = pixels(path)
    assert min(drawn.get(colour, 0) for colour in (BLUE, ORANGE, GREEN)) > 20
    draw_learning_curve(METRICS, None, path)
    assert drawn[GRAY] > pixels(path).get(GRAY, 0) + 300  # the threshold's line


def test_a_run_that_was_never_evaluated_has_a_learning_curve(tmp_path: Path) -> None:
    path = tmp_path / "learning_curve.png"
    draw_learning_curve(METRICS[:1], 475.0, path)
    assert len(pixels(path)) > 10
    draw_learning_curve([], None, path)
    assert pixels(path).get(BLUE, 0) > 20  # in the legend


def shown(path: Path) -> tuple[int, int]:
    """Pictures in a GIF, and the milliseconds that it takes."""
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert image.size == (300, 200)  # of 600 by 400
        milliseconds = 0
        for i in range(image.n_frames):  # type: ignore[attr-defined]  # of PIL's GIF images
            image.seek(i)
            milliseconds += image.info["duration"]
        return image.tell() + 1, milliseconds


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_an_episode_is_recorded_whole(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "episode.gif"
    episode_return = record_episode(lean, Environment("CartPole-v1"), seed, path)
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    steps, ended = 0, False
    while not ended:
        observation, _, ended, _, _ = env.step(int(observation[2] > 0))
        steps += 1
    env.close()
    assert episode_return == steps  # CartPole pays 1 a step
    # 50 steps a second: the start, every second step, and the last one; 40 ms for each
    frames = 1 + steps // 2 + steps % 2
    count, milliseconds = shown(path)
    assert milliseconds == 40 * frames
    assert 0.8 * frames < count <= frames  # PIL shows two equal ones as one, for longer


def test_an_episode_is_shown_at_its_own_speed(tmp_path: Path) -> None:
    path = tmp_path / "episode.gif"
    with gym.make("Acrobot-v1") as env:
        assert env.metadata["render_fps"] == 15
    assert record_episode(stand_still, Environment("Acrobot-v1"), 0, path) == -500.0
    with Image.open(path) as image:
        assert image.info["duration"] == pytest.approx(1000 / 15, abs=10)  # GIFs count 10 ms


def test_an_episode_of_a_fast_environment_has_at_most_25_pictures_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    environment = Environment("thermostat:Thermostat-v0")  # of 30 steps a second
    path = tmp_path / "episode.gif"
    record_episode(stand_still, environment, 0, path)
    pictures, milliseconds = shown(path)  # alike ones in succession are one
    assert 10 < pictures <= 1 + 96 // 2
    assert milliseconds == pytest.approx(1_000 * 96 / 30, rel=0.2)  # GIFs count 10 ms


def test_an_old_environment_is_recorded_without_a_warning(tmp_path: Path) -> None:
    # Warnings are errors in tests. CartPole-v0 is that of the preset "notebook".
    assert record_episode(lean, Environment("CartPole-v0"), 0, tmp_path / "episode.gif") > 10.0


@pytest.mark.parametrize("name", ["episode", "episode.jpg"])
def test_a_gif_is_written_whatever_its_name(name: str, tmp_path: Path) -> None:
    record_episode(lean, Environment("CartPole-v1"), 0, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == "GIF"


def test_recording_needs_no_screen(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER"):
        monkeypatch.delitem(ENVIRONMENT, name, raising=False)
    monkeypatch.setitem(ENVIRONMENT, "DISPLAY", ":99")  # where none is
    path = tmp_path / "episode.gif"
    finished = run("training", "render", str(trained.model_dir), "--output", str(path))
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert finished.stdout == f"return 500.0, recorded in {path}\n"
    _, milliseconds = shown(path)
    assert milliseconds == 40 * (1 + 250)


class Undrawable(gym.Env[np.ndarray, np.int64]):
    """Ends the program when it is drawn, or draws nothing."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # as Gymnasium has it
    observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, exits: bool = False, render_mode: str | None = None) -> None:
        self.exits, self.render_mode = exits, render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros(3, np.float32), {}

    def render(self) -> None:
        if self.exits:
            sys.exit(0)


Register = Callable[[type[Undrawable]], str]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register a class as an environment for one test; its id."""

    def register(kind: type[Undrawable]) -> str:
        env_id = f"{kind.__name__}-v0"
        monkeypatch.setitem(gym.registry, env_id, EnvSpec(env_id, entry_point=partial(kind)))
        return env_id

    return register


@pytest.mark.filterwarnings("ignore:.*RGB-array rendering should return")
def test_an_environment_that_cannot_be_drawn_is_an_error_of_one_line(
    register: Register, tmp_path: Path
) -> None:
    path = tmp_path / "episode.gif"
    assert issubclass(RenderError, TrainingError)
    with pytest.raises(RenderError, match="it renders NoneType, not an array of pixels"):
        record_episode(lean, Environment(register(Undrawable), {"exits": False}), 0, path)
    with pytest.raises(WorkerError, match=r"ended the program: SystemExit\(0\)"):
        record_episode(lean, Environment(register(Undrawable), {"exits": True}), 0, path)


class Motionless(Undrawable):
    """A tall picture that never changes, a step a second."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  # as Gymnasium has it

    def step(self, _: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(3, np.float32), 1.0, False, False, {}

    def render(self) -> np.ndarray:  # type: ignore[override]  # the base draws nothing
        return np.full((900, 10, 3), 200, np.uint8)


def test_a_picture_that_stays_for_hours_is_shown_as_long_as_a_gif_can(
    register: Register, tmp_path: Path
) -> None:
    path = tmp_path / "episode.gif"
    assert record_episode(lean, Environment(register(Motionless)), 0, path) == 10_000.0
    with Image.open(path) as image:
        assert image.info["duration"] == 655_350  # 16 bits for hundredths of a second
        assert image.size == (13, 1200)


def test_an_environment_that_fails_to_draw_is_an_error_of_one_line(
    register: Register, tmp_path: Path
) -> None:
    class Displayless(Undrawable):
        def render(self) -> None:
            raise RuntimeError("no display")

    with pytest.raises(RenderError, match=r"^it cannot be rendered: no display$"):
        record_episode(lean, Environment(register(Displayless)), 0, tmp_path / "episode.gif")


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=rf"^{tmp_path} cannot be written: Is a directory"):
        record_episode(lean, Environment("CartPole-v1"), 0, tmp_path)


def test_a_run_goes_on_where_drawing_ends_the_program(
    register: Register, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(1) as drawing:
        pictures = Pictures(
            drawing, Environment(register(Undrawable), {"exits": True}), 0, tmp_path
        )
        pictures.record(lean)
        assert pictures.wait() == {}
    assert "a picture could not be drawn: an environment ended" in capsys.readouterr().err
