"""What shows the demo player's episodes: a text rendering and a GIF recorder."""

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from serving.demo.player import Moment

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_WIDTH = 72
POLE_ROWS = 6
PLAIN_LINE_EVERY = 25  # steps: half a second of CartPole
TRACK_HALF_WIDTH = 2.4  # metres; beyond it CartPole's episode ends
POLE_LENGTH = 1.0  # metres

GIF_WIDTH = 300
GIF_FRAMES_PER_SECOND = 25


class RenderError(Exception):
    """An episode cannot be rendered or recorded; the message says why."""


def watchers(
    env: Any, env_id: str, *, out: TextIO | None, record: Path | None
) -> list[Callable[[Moment], None]]:
    """What draws each moment of `env` on `out` and records the first episode, where wanted.

    Raises:
        RenderError: it cannot.
    """
    frames_per_second = env.metadata.get("render_fps", GIF_FRAMES_PER_SECOND)
    wanted: list[Callable[[Moment], None]] = []
    if out is not None:
        wanted.append(TextRenderer(out, env_id, frames_per_second))
    if record is not None:
        wanted.append(GifRecorder(record, env.render, frames_per_second))
    return wanted


class TextRenderer:
    """Draws CartPole in real time on a terminal; elsewhere prints a line every half second."""

    def __init__(self, out: TextIO, env_id: str, frames_per_second: float) -> None:
        """Draw to `out`; RenderError if the environment is not CartPole."""
        if not env_id.startswith("CartPole"):
            raise RenderError(f"--render text draws CartPole, not {env_id}")
        self._out = out
        self._in_place = out.isatty()
        columns = os.get_terminal_size(out.fileno()).columns if self._in_place else 0
        self._width = min(TEXT_WIDTH, columns - 1) if columns else TEXT_WIDTH
        self._frame_seconds = 1.0 / frames_per_second
        self._due = time.perf_counter()

    def __call__(self, moment: Moment) -> None:
        """Draw the current state."""
        if self._in_place:
            lines = draw(moment, self._width)
            # Over the last frame; the first frame of an episode goes below the output since then.
            above = f"\x1b[{len(lines)}F" if moment.steps else ""
            self._out.write(above + "".join(f"{line}\x1b[K\n" for line in lines))
            self._out.flush()
            now = time.perf_counter()
            self._due = max(self._due + self._frame_seconds, now)
            time.sleep(self._due - now)
        elif moment.ended or moment.steps % PLAIN_LINE_EVERY == 0:
            self._out.write(f"{describe(moment)}\n")


def draw(moment: Moment, width: int) -> list[str]:
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
    return [*pole, _centred(cart, centre, width), track, describe(moment)[:width]]


def describe(moment: Moment) -> str:
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
        """Record into `path`; RenderError if that, or Pillow, is not there."""
        # Fail before an episode is played in vain.
        if importlib.util.find_spec("PIL") is None:
            raise RenderError("--record needs the package pillow, which is not installed")
        if not path.absolute().parent.is_dir():
            raise RenderError(f"--record: {path.parent} is not a folder")
        self._path = path
        self._render = render
        self._every = max(1, round(frames_per_second / GIF_FRAMES_PER_SECOND))
        self._frame_ms = 1000 * self._every / frames_per_second
        self._frames: list[Image] = []

    def __call__(self, moment: Moment) -> None:
        """Keep the current frame, and save the GIF at the end of the episode.

        Raises:
            RenderError: the file cannot be written.
            gymnasium.error.Error: the environment cannot be rendered.
        """
        from PIL import Image

        if moment.episode > 1:
            return
        if moment.ended or moment.steps % self._every == 0:
            frame = Image.fromarray(self._render())
            height = round(frame.height * GIF_WIDTH / frame.width)
            self._frames.append(frame.resize((GIF_WIDTH, height)).quantize(16))
        if not moment.ended:
            return
        first, *others = self._frames
        try:
            first.save(
                self._path,
                "GIF",
                save_all=True,
                append_images=others,
                duration=self._frame_ms,
                loop=0,
            )
        except OSError as error:
            raise RenderError(f"--record: {self._path}: {error.strerror}") from error
