"""Shows the demo player's episodes: a text rendering and a GIF recorder."""

import functools
import importlib.util
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from serving.demo.environment import Environment
from serving.demo.player import Moment

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_WIDTH = 72
POLE_ROWS = 6
PLAIN_LINE_SECONDS = 0.5  # of the environment's time
TRACK_HALF_WIDTH = 2.4  # metres; beyond it CartPole's episode ends
POLE_LENGTH = 1.0  # metres

GIF_WIDTH, GIF_HEIGHT = 300, 1200  # at most; a picture keeps its shape
GIF_LONGEST_MS = 655_350  # per picture: the format has 16 bits for hundredths of a second
GIF_FRAMES_PER_SECOND = 25  # at most: many programs show a faster GIF much slower
# Accepted values of an environment's steps per second; a GIF cannot show a picture much longer.
SLOWEST, FASTEST = 0.1, 10_000.0


class RenderError(Exception):
    """An episode cannot be rendered or recorded; the message says why."""


def watchers(
    environment: Environment, *, out: TextIO | None, record: Path | None
) -> list[Callable[[Moment], None]]:
    """Callables that show each moment on `out` and record the first episode, if requested.

    Raises:
        RenderError: the episode cannot be recorded.
    """
    frames_per_second = steps_per_second(environment.metadata)
    wanted: list[Callable[[Moment], None]] = []
    if out is not None and environment.is_cartpole:
        wanted.append(TextRenderer(out, frames_per_second, describe_cartpole, draw_cartpole))
    elif out is not None:
        describe_step = functools.partial(describe, environment.action_names)
        wanted.append(TextRenderer(out, frames_per_second, describe_step))
    if record is not None:
        wanted.append(GifRecorder(record, environment.render, frames_per_second))
    return wanted


def steps_per_second(metadata: object) -> float:
    """How fast an environment's steps are meant to be shown; 25 if it does not say so sensibly."""
    stated: Any = metadata.get("render_fps") if isinstance(metadata, dict) else None
    is_number = isinstance(stated, int | float | np.integer | np.floating)
    if is_number and not isinstance(stated, bool) and SLOWEST <= stated <= FASTEST:
        return float(stated)
    return float(GIF_FRAMES_PER_SECOND)


class TextRenderer:
    """Shows steps in real time on a terminal; elsewhere prints a line every half second."""

    def __init__(
        self,
        out: TextIO,
        frames_per_second: float,
        describe: Callable[[Moment], str],
        draw: Callable[[Moment, int], list[str]] | None = None,
    ) -> None:
        """Write to `out`; `draw` returns a fixed number of lines, shown above the description."""
        self._out = out
        self._describe = describe
        self._draw = draw
        self._in_place = out.isatty()
        columns = os.get_terminal_size(out.fileno()).columns if self._in_place else 0
        self._width = min(TEXT_WIDTH, columns - 1) if columns else TEXT_WIDTH
        self._plain_every = max(1, round(frames_per_second * PLAIN_LINE_SECONDS))
        self._frame_seconds = 1.0 / frames_per_second
        self._due = time.perf_counter()

    def __call__(self, moment: Moment) -> None:
        """Show the current state."""
        if self._in_place:
            drawing = [] if self._draw is None else self._draw(moment, self._width)
            lines = [*drawing, self._describe(moment)[: self._width]]
            # Over the last frame; an episode's first frame goes below what was printed meanwhile.
            above = f"\x1b[{len(lines)}F" if moment.steps else ""
            self._out.write(above + "".join(f"{line}\x1b[K\n" for line in lines))
            self._out.flush()
            now = time.perf_counter()
            self._due = max(self._due + self._frame_seconds, now)
            time.sleep(self._due - now)
        elif moment.ended or moment.steps % self._plain_every == 0:
            self._out.write(f"{self._describe(moment)}\n")


def draw_cartpole(moment: Moment, width: int) -> list[str]:
    """Draw CartPole in ASCII, `width` columns wide: always the same number of lines."""
    position, _, angle, _ = (float(number) for number in moment.observation)
    per_metre = (width - 1) / (2 * TRACK_HALF_WIDTH)
    centre = (width - 1) / 2 + position * per_metre
    stroke = "|" if abs(angle) < 0.05 else "/" if angle > 0 else "\\"
    lean = np.sin(angle) * POLE_LENGTH * per_metre / POLE_ROWS  # columns per row
    rows = range(POLE_ROWS, 0, -1)
    pole = [_centred(stroke, centre + lean * (row - 0.5), width) for row in rows]
    action = None if moment.response is None else moment.response.actions[0]
    cart = f"{'<' if action == 0 else ' '}[===]{'>' if action == 1 else ' '}"
    track = "|" + "-" * (width - 2) + "|"
    return [*pole, _centred(cart, centre, width), track]


def describe(action_names: Sequence[str], moment: Moment) -> str:
    """One line about a step, for any environment."""
    line = f"episode {moment.episode}  step {moment.steps:3}"
    if moment.response is None:
        return line
    action, value = moment.response.actions[0], moment.response.state_values[0]
    line += f"  action {action_names[action]}  return {moment.episode_return:g}"
    return f"{line}  value {value:.1f}"


def describe_cartpole(moment: Moment) -> str:
    """One line with the state of CartPole."""
    position, _, angle, _ = moment.observation
    line = f"episode {moment.episode}  step {moment.steps:3}  x {position:+.2f} m"
    line += f"  pole {np.degrees(angle):+5.1f} deg"
    if moment.response is not None:
        ((_, right),) = moment.response.action_probabilities
        line += f"  right {right:.2f}  value {moment.response.state_values[0]:.1f}"
    return line


def _centred(text: str, centre: float, width: int) -> str:
    """Centre a text on a column and clip it to the width."""
    left = round(centre - (len(text) - 1) / 2)
    return (" " * left + text[max(-left, 0) :])[:width].rstrip()


class GifRecorder:
    """Saves the first episode as a GIF, with the environment's renderer."""

    def __init__(self, path: Path, render: Callable[[], Any], frames_per_second: float) -> None:
        """Record into `path`; RenderError if its folder or Pillow is missing."""
        # Fail before an episode is played in vain.
        if importlib.util.find_spec("PIL") is None:
            raise RenderError("--record needs the package pillow, which is not installed")
        if not path.absolute().parent.is_dir():
            raise RenderError(f"--record: {path.parent} is not a folder")
        self._path = path
        self._render = render
        self._every = math.ceil(frames_per_second / GIF_FRAMES_PER_SECOND)
        self._frame_ms = 1000 * self._every / frames_per_second
        self._frames: list[Image] = []
        self._durations_ms: list[float] = []

    def __call__(self, moment: Moment) -> None:
        """Keep the current frame, and save the GIF at the end of the episode.

        Raises:
            RenderError: the file cannot be written.
            UnplayableError: the environment cannot be rendered.
        """
        from PIL import Image

        if moment.episode > 1:
            return
        if moment.ended or moment.steps % self._every == 0:
            self._keep(Image.fromarray(self._render()))
        if not moment.ended:
            return
        first, *others = self._frames
        try:
            first.save(
                self._path,
                "GIF",
                save_all=True,
                append_images=others,
                duration=self._durations_ms,
                loop=0,
            )
        except OSError as error:
            raise RenderError(f"--record: {self._path}: {error.strerror}") from error

    def _keep(self, frame: "Image") -> None:
        scale = min(GIF_WIDTH / frame.width, GIF_HEIGHT / frame.height)
        size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        frame = frame.resize(size).quantize(16)
        # Merge equal pictures here: Pillow does so too, but fails if one is then shown too long.
        if self._frames and frame.convert("RGB") == self._frames[-1].convert("RGB"):
            longer = self._durations_ms[-1] + self._frame_ms
            self._durations_ms[-1] = min(longer, GIF_LONGEST_MS)
        else:
            self._frames.append(frame)
            self._durations_ms.append(self._frame_ms)
