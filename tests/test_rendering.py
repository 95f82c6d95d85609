"""How the demo player draws and describes what it plays, without a service."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.demo.player import Moment
from serving.demo.rendering import (
    GifRecorder,
    TextRenderer,
    describe,
    describe_cartpole,
    draw_cartpole,
    steps_per_second,
)
from serving.schemas import ActResponse, ModelVersion


def moment(position: float, angle: float, action: int | None = None) -> Moment:
    """A state of the cart, after the action if there is one."""
    response = None
    if action is not None:
        model = ModelVersion("cartpole", 1)
        response = ActResponse([action], [[0.0, 0.0]], [[0.25, 0.75]], [-1.0], [9.0], 7, model, [])
    observation = np.array([position, 0.0, angle, 0.0], np.float32)
    return Moment(1, 3, observation, response, False, episode_return=3.0, mean_latency_ms=1.0)


def column(line: str) -> int:
    return len(line) - len(line.lstrip())


def test_the_drawn_pole_stands_on_the_cart_and_leans_as_it_does() -> None:
    upright = draw_cartpole(moment(0.0, 0.0), 73)
    assert {line.strip() for line in upright[:6]} == {"|"}
    assert {column(line) for line in upright[:6]} == {36}
    assert upright[6].strip() == "[===]"
    assert column(upright[6]) == 36 - 2
    right, left = draw_cartpole(moment(0.0, 0.2), 73), draw_cartpole(moment(0.0, -0.2), 73)
    assert column(right[0]) > column(right[5]) >= 36 >= column(left[5]) > column(left[0])
    assert (right[0].strip(), left[0].strip()) == ("/", "\\")


def test_the_drawing_shows_the_action_and_the_policy_outputs() -> None:
    assert draw_cartpole(moment(0.0, 0.0, 0), 73)[6].strip() == "<[===]"
    pushed_right = draw_cartpole(moment(0.0, 0.0, 1), 73)
    assert pushed_right[6].strip() == "[===]>"
    assert describe_cartpole(moment(0.0, 0.0, 1)).endswith("right 0.75  value 9.0")


@pytest.mark.parametrize("width", [20, 72, 73])
@pytest.mark.parametrize("position", [-5.0, -2.4, -1.0, 0.0, 2.4, 5.0])
@pytest.mark.parametrize("angle", [-1.0, 0.0, 0.2])
def test_the_drawing_stays_in_its_frame(width: int, position: float, angle: float) -> None:
    lines = draw_cartpole(moment(position, angle, 1), width)
    assert len(lines) == len(draw_cartpole(moment(0.0, 0.0), width))
    assert max(len(line) for line in lines) == width
    assert all(line.isascii() for line in lines)


def test_a_step_of_another_environment_is_described_by_what_every_environment_has() -> None:
    names = ["left", "right"]
    assert describe(names, moment(0.0, 0.0)) == "episode 1  step   3"
    expected = "episode 1  step   3  action right  return 3  value 9.0"
    assert describe(names, moment(0.0, 0.0, 1)) == expected


def test_a_line_is_printed_every_half_second_of_the_environment() -> None:
    def lines(frames_per_second: float) -> int:
        out = io.StringIO()
        show = TextRenderer(out, frames_per_second, describe_cartpole)
        for steps in range(100):
            show(moment(0.0, 0.0)._replace(steps=steps))
        return out.getvalue().count("\n")

    assert (lines(50.0), lines(4.0), lines(1.0)) == (4, 50, 100)


@pytest.mark.parametrize(
    "metadata",
    [
        *(None, {}, []),
        *({"render_fps": odd} for odd in (None, 0, -5, "30", True, float("nan"), 10**400, 1e-9)),
    ],
)
def test_an_environment_that_does_not_say_how_fast_it_is_has_25_steps_per_second(
    metadata: object,
) -> None:
    assert steps_per_second(metadata) == 25.0
    assert steps_per_second({"render_fps": 50}) == 50.0
    assert steps_per_second({"render_fps": np.float32(0.5)}) == 0.5


@pytest.mark.parametrize(
    ("rate", "pictures", "milliseconds"),
    # 12 steps; the format counts in hundredths of a second, and the last picture is always there
    [(4, 13, 250), (25, 13, 40), (30, 7, 60), (50, 7, 40), (60, 5, 50), (1000, 2, 40)],
)
def test_a_gif_never_has_more_than_25_pictures_per_second(
    rate: float, pictures: int, milliseconds: int, tmp_path: Path
) -> None:
    count = itertools.count()
    path = tmp_path / "episode.gif"
    # Equal pictures next to each other would be saved as one.
    record = GifRecorder(path, lambda: np.full((20, 30, 3), 20 * next(count), np.uint8), rate)
    for steps in range(13):
        record(moment(0.0, 0.0)._replace(steps=steps, ended=steps == 12))
    with Image.open(path) as image:
        assert image.n_frames == pictures  # type: ignore[attr-defined]  # of PIL's GIF images
        assert image.info["duration"] == milliseconds >= 40


def recorded(path: Path, rate: float, *pictures: np.ndarray) -> list[int]:
    """Record an episode of these pictures; the milliseconds of each in the file."""
    shown = iter(pictures)
    record = GifRecorder(path, lambda: next(shown), rate)
    for steps in range(len(pictures)):
        record(moment(0.0, 0.0)._replace(steps=steps, ended=steps == len(pictures) - 1))
    with Image.open(path) as image:
        durations = []
        for index in range(image.n_frames):  # type: ignore[attr-defined]  # of PIL's GIF images
            image.seek(index)
            durations.append(image.info.get("duration", 0))
    return durations


def test_a_picture_that_stands_still_is_shown_as_long_as_a_gif_can(tmp_path: Path) -> None:
    dark, light = (np.full((20, 30, 3), grey, np.uint8) for grey in (20, 200))
    path = tmp_path / "episode.gif"
    assert recorded(path, 0.1, *[dark] * 70) == [655_350]
    assert recorded(path, 0.1, *[dark] * 2, *[light] * 70, dark) == [20_000, 655_350, 10_000]
    assert recorded(path, 10.0, *[dark] * 3, light) == [300, 100]


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(400, 600, (300, 200)), (4000, 15, (4, 1200)), (9000, 1, (1, 1200)), (1, 9000, (300, 1))],
)
def test_a_picture_of_any_shape_fits_into_a_gif(
    height: int, width: int, size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "episode.gif"
    recorded(path, 25.0, *(np.full((height, width, 3), grey, np.uint8) for grey in (20, 200)))
    with Image.open(path) as image:
        assert image.size == size
