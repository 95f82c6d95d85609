"""Pictures of a run: its learning curve, and an episode of the learned policy."""

import io
import math
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import click
import gymnasium as gym
import numpy as np
from PIL import Image

from training.config import Environment
from training.envs import make_env
from training.errors import TrainingError, first_line
from training.evaluation import MAX_STEPS
from training.shares import not_exiting
from training.types import PolicyFunction

GIF_WIDTH, GIF_HEIGHT = 300, 1200  # at most; the aspect ratio is kept
GIF_LONGEST_MS = 655_350  # of a frame: the format has 16 bits for hundredths of a second
GIF_FRAMES_PER_SECOND = 25


class RenderError(TrainingError):
    """An episode cannot be recorded; the message says why."""


class Pictures:
    """The pictures of a run, drawn in another process while the run continues.

    A picture that cannot be drawn does not prevent the export.
    """

    def __init__(
        self, drawing: Executor, environment: Environment, seed: int, folder: Path
    ) -> None:
        """Store what the pictures are to show; none is drawn yet.

        Args:
            drawing: the process, see `training.processes`.
            environment: where episodes are recorded.
            seed: of their initial states.
            folder: of the run.
        """
        self._drawing, self._folder = drawing, folder
        self._environment, self._seed = environment, seed
        self._recorded: PolicyFunction | None = None
        self._drawn: dict[Path, Future[str | None]] = {}

    def record(self, policy: PolicyFunction) -> None:
        """Begin to record an episode of a policy, replacing any other policy's."""
        if policy is not self._recorded:
            self._recorded = policy
            self._begin("episode.gif", record_episode, policy, self._environment, self._seed)

    def draw_curve(self, metrics: list[dict[str, float]], reward_threshold: float | None) -> None:
        """Begin to draw the learning curve."""
        self._begin("learning_curve.png", draw_learning_curve, metrics, reward_threshold)

    def wait(self) -> dict[str, Path]:
        """Wait until all pictures are drawn; return their paths by file name."""
        pictures, reasons = {}, []
        for path, drawn in self._drawn.items():
            try:
                reason = drawn.result()
            except BrokenExecutor:  # the renderer crashed
                reason = "the process that draws has ended"
            if reason is None:
                pictures[path.name] = path
            else:
                reasons.append(reason)
        if reasons:
            click.echo(f"a picture could not be drawn: {reasons[0]}", err=True)
        return pictures

    def _begin(self, name: str, draw: Callable[..., object], *arguments: Any) -> None:
        path = self._folder / name
        try:
            self._drawn[path] = self._drawing.submit(_try_to_draw, path, draw, *arguments)
        except BrokenExecutor as error:
            self._drawn[path] = Future()
            self._drawn[path].set_exception(error)


def _try_to_draw(path: Path, draw: Callable[..., object], *arguments: Any) -> str | None:
    """Draw a picture; return why it could not be drawn, or None."""
    try:
        draw(*arguments, path)
    # Rendering runs the environment's own code, which may raise anything.
    except Exception as error:
        return first_line(error)
    return None


def draw_learning_curve(
    metrics: list[dict[str, float]], reward_threshold: float | None, path: Path
) -> None:
    """Draw returns by environment steps as a PNG."""
    # Imported here: it takes a third of a second, and recording an episode does not need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    styles = {"running_return": "-", "sampled_return": ".-", "greedy_return": "o"}
    for column, style in styles.items():
        rows = [row for row in metrics if column in row]
        axes.plot(
            [row["env_steps"] for row in rows],
            [row[column] for row in rows],
            style,
            label=column.replace("_", " "),
        )
    if reward_threshold is not None:
        axes.axhline(reward_threshold, color="gray", linestyle="--", label="reward threshold")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("undiscounted return")
    axes.legend()
    figure.savefig(path, dpi=120)


@not_exiting()
def record_episode(
    policy: PolicyFunction, environment: Environment, seed: int, path: Path
) -> float:
    """Record one greedy episode as a GIF, by the environment's own renderer.

    An episode without a time limit ends after `MAX_STEPS` steps.

    Returns:
        The episode's return.

    Raises:
        RenderError: the environment cannot be rendered, or the file cannot be written.
        WorkerError: the environment has ended the program.
    """
    with make_env(environment, render_mode="rgb_array") as env:
        frames_per_second = env.metadata.get("render_fps") or GIF_FRAMES_PER_SECOND
        every = max(1, math.ceil(frames_per_second / GIF_FRAMES_PER_SECOND))
        observation, _ = env.reset(seed=seed)
        frames, episode_return = [_frame(env)], 0.0
        for step in range(1, MAX_STEPS + 1):
            logits, _ = policy(np.asarray(observation, np.float32)[None])
            observation, reward, terminated, truncated, _ = env.step(logits[0].argmax())
            episode_return += float(reward)
            if step % every == 0 or terminated or truncated:
                frames.append(_frame(env))
            if terminated or truncated:
                break
    gif = _animate(frames, 1000 * every / frames_per_second)
    try:
        path.write_bytes(gif)  # in one go: this process can be ended at any time
    except OSError as error:
        raise RenderError(f"{path} cannot be written: {error.strerror}") from error
    return episode_return


def _frame(env: gym.Env[Any, Any]) -> Image.Image:
    try:
        pixels = env.render()
    except Exception as error:  # it is third-party code, which can raise anything
        raise RenderError(f"it cannot be rendered: {first_line(error)}") from error
    if not isinstance(pixels, np.ndarray):
        raise RenderError(f"it renders {type(pixels).__name__}, not an array of pixels")
    frame = Image.fromarray(pixels)
    scale = min(GIF_WIDTH / frame.width, GIF_HEIGHT / frame.height)
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    # One palette for all frames: computing one per frame would take most of the time.
    return frame.resize(size, Image.Resampling.BOX, reducing_gap=1.0).convert(
        "P", palette=Image.Palette.WEB, dither=Image.Dither.NONE
    )


def _animate(frames: list[Image.Image], milliseconds: float) -> bytes:
    """A GIF of frames, each shown for the same time."""
    shown, durations = frames[:1], [milliseconds]
    for frame in frames[1:]:
        # Pillow would merge equal frames too, but fails if they exceed the format's longest time.
        if frame == shown[-1]:
            durations[-1] = min(durations[-1] + milliseconds, GIF_LONGEST_MS)
        else:
            shown.append(frame)
            durations.append(milliseconds)
    gif = io.BytesIO()
    shown[0].save(gif, "GIF", save_all=True, append_images=shown[1:], duration=durations, loop=0)
    return gif.getvalue()
