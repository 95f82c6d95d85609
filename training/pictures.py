"""Pictures of a run: its learning curve, and an episode of the learned policy."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image

from training.config import Environment
from training.envs import make_env
from training.errors import first_line
from training.evaluation import MAX_STEPS
from training.types import PolicyFunction

GIF_WIDTH = 300
GIF_FRAMES_PER_SECOND = 25


class Drawn(NamedTuple):
    """The pictures of a run that could be drawn."""

    paths: list[Path]
    reason: str | None  # why one could not be drawn, if so


class RenderError(Exception):
    """An environment cannot be drawn; the message says why."""


def draw(
    metrics: list[dict[str, float]],
    reward_threshold: float | None,
    policy: PolicyFunction,
    environment: Environment,
    seed: int,
    folder: Path,
) -> Drawn:
    """Draw a run's learning curve, and record an episode, in the folder of the run."""
    paths: list[Path] = []
    try:
        path = folder / "learning_curve.png"
        draw_learning_curve(metrics, reward_threshold, path)
        paths.append(path)
        path = folder / "episode.gif"
        record_episode(policy, environment, seed, path)
        paths.append(path)
    # Rendering is the environment's own code, and not every environment can.
    except Exception as error:
        return Drawn(paths, first_line(error))
    return Drawn(paths, None)


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


def record_episode(
    policy: PolicyFunction, environment: Environment, seed: int, path: Path
) -> float:
    """Record one greedy episode as a GIF, by the environment's own renderer.

    An episode without a time limit ends after `MAX_STEPS` steps.

    Returns:
        The episode's return.

    Raises:
        RenderError: the environment cannot be drawn.
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
    milliseconds = 1000 * every / frames_per_second
    frames[0].save(
        path, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
    )
    return episode_return


def _frame(env: gym.Env[Any, Any]) -> Image.Image:
    pixels = env.render()
    if not isinstance(pixels, np.ndarray):
        raise RenderError(f"it renders {type(pixels).__name__}, not an array of pixels")
    frame = Image.fromarray(pixels)
    size = GIF_WIDTH, round(frame.height * GIF_WIDTH / frame.width)
    # One palette for all frames: computing one per frame would take most of the time.
    return frame.resize(size, Image.Resampling.BOX, reducing_gap=1.0).convert(
        "P", palette=Image.Palette.WEB, dither=Image.Dither.NONE
    )
