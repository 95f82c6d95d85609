"""Draw what a CartPole policy decides: `python -m benchmarks.method_figures MODEL_DIR PNG`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.artefact import load
from training.model import log_softmax
from training.types import PolicyFunction

ANGLES = np.linspace(-0.21, 0.21, 85)  # rad; an episode ends at 0.2095
VELOCITIES = np.linspace(-2.0, 2.0, 81)  # rad/s


def draw(policy: PolicyFunction, path: Path) -> None:
    """Draw the probability of a push to the right, and the value, of a cart at rest."""
    angles, velocities = np.meshgrid(ANGLES, VELOCITIES)
    observations = np.zeros((angles.size, 4), np.float32)
    observations[:, 2], observations[:, 3] = angles.ravel(), velocities.ravel()
    logits, values = policy(observations)
    pictures = {
        "probability of a push to the right": np.exp(log_softmax(logits))[:, 1],
        "state value": values,
    }
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, (title, numbers) in zip(figure.subplots(1, 2), pictures.items(), strict=True):
        shown = axes.pcolormesh(ANGLES, VELOCITIES, numbers.reshape(angles.shape), cmap="cividis")
        figure.colorbar(shown, ax=axes)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("pole angle (rad)")
        axes.set_ylabel("pole angular velocity (rad/s)")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw(load(Path(sys.argv[1])).policy, Path(sys.argv[2]))
