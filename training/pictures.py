"""Pictures of a run: its learning curve, and an episode of the learned policy."""

from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image

from training.envs import make_rendered_env
from training.types import PolicyFunction

GIF_WIDTH = 300
GIF_FRAMES_PER_SECOND = 25


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


def record_episode(policy: PolicyFunction, env_id: str, seed: int, path: Path) -> float:
    """Record one greedy episode as a GIF, by Gymnasium's own renderer.

    Returns:
        The episode's return.
    """
    env = make_rendered_env(env_id)
    frames_per_second = env.metadata.get("render_fps", GIF_FRAMES_PER_SECOND)
    every = max(1, round(frames_per_second / GIF_FRAMES_PER_SECOND))
    observation, _ = env.reset(seed=seed)
    frames, episode_return, step, ended = [_frame(env)], 0.0, 0, False
    while not ended:
        logits, _ = policy(np.asarray(observation, np.float32)[None])
        observation, reward, terminated, truncated, _ = env.step(logits[0].argmax())
        episode_return += float(reward)
        step += 1
        ended = terminated or truncated
        if step % every == 0 or ended:
            frames.append(_frame(env))
    env.close()
    milliseconds = 1000 * every / frames_per_second
    frames[0].save(
        path, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
    )
    return episode_return


def _frame(env: gym.Env[np.ndarray, np.int64]) -> Image.Image:
    pixels = env.render()
    assert isinstance(pixels, np.ndarray)
    frame = Image.fromarray(pixels)
    size = GIF_WIDTH, round(frame.height * GIF_WIDTH / frame.width)
    # One palette for all frames: computing one per frame would take most of the time.
    return frame.resize(size, Image.Resampling.BOX).convert(
        "P", palette=Image.Palette.WEB, dither=Image.Dither.NONE
    )
