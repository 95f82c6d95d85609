"""The closed loop: serve, record, notice, learn again, try beside the old version, promote.

    python examples/closed_loop.py FOLDER

A policy balances a pole. Then the cart's motor is repaired, and wired the wrong way round: the pole
falls at once. The script plays the part of the clients, which act in the world as it is and send
the returns back, and that of the operator, who only looks at returns; it runs the commands that a
person would type. docs/loop.md explains the same in more detail.
"""

import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
import numpy as np

if __name__ == "__main__":  # sys.path[0] is the script's folder, which contains `cart`
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from serving.client import PolicyClient

EXAMPLES = Path(__file__).resolve().parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{EXAMPLES}:{EXAMPLES.parent}"}
THRESHOLD = 475.0  # the mean return below which the policy is not good enough
WIRED, REVERSED = 10.0, -10.0  # the force of the motor, in newtons
EPISODES = 12  # between two checks of the returns
CLIENTS = 6  # that act at the same time
MAX_LOOKS = 20  # checks of a canary


def main(folder: Path) -> None:
    """Run the loop once in a folder, which gets the models, the runs and the record."""
    train(folder, WIRED)
    promote(folder, "1")  # otherwise the newest version is served as soon as it exists
    with service(folder) as url:
        PolicyClient(url).wait_until_ready(60)
        say(f"version 1 with the motor that it knows: mean return {act(url, WIRED):.0f}")
        seen = act(url, REVERSED)
        say(f"version 1 with the motor reversed: mean return {seen:.0f}")
        if seen >= THRESHOLD:
            sys.exit("it is good enough there: nothing to learn")
        say("that is not good enough: a new version learns from the old one")
        train(folder, REVERSED, "--from", str(folder / "models" / "cart" / "1"))
        promote(folder, "2", "--share", "0.5")
        wait_for(url, "canary")
        for _ in range(MAX_LOOKS):
            act(url, REVERSED)
            if promote(folder, "2", "--if-better", "--log", str(folder / "record")):
                break
        else:
            sys.exit("version 2 was not found to be better")
        wait_for(url, "served")
        say(f"version 2 with the motor reversed: mean return {act(url, REVERSED):.0f}")


def say(text: str) -> None:
    """Print a line and flush it, so that it appears at once in a pipe, too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def train(folder: Path, force: float, *options: str) -> None:
    """Learn in a world whose motor has that force, and export the next version."""
    kwargs = f'{{"force": {force}}}'
    command(
        *("training", "train", "--env-id", "cart:Cart-v0", "--env-kwargs", kwargs, "--seed", "0"),
        *("--return-bounds", "0", "500", "--models", str(folder / "models"), "--name", "cart"),
        *("--run-dir", str(folder / f"run-{force}"), *options),
    ).check_returncode()


def promote(folder: Path, *options: str) -> bool:
    """Select a version, and print what the command says; returns whether it is selected."""
    models = ("--models", str(folder / "models"), "--name", "cart")
    finished = command("serving", "promote", *options, *models)
    say(finished.stdout.strip() or finished.stderr.strip())
    return finished.returncode == 0


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the project to its end."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """A service that records its decisions; yields its URL."""
    models = ("--models", str(folder / "models"), "--name", "cart", "--port", "0")
    record = ("--decision-log", str(folder / "record"))
    with subprocess.Popen(
        [sys.executable, "-m", "serving", "run", *models, *record],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=(folder / "service.log").open("w"),
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def wait_for(url: str, state: str) -> None:
    """Return when ten connections in a row have found version 2 in that state."""
    agreed = 0
    while agreed < 10:
        with PolicyClient(url) as client:
            (model,) = client.models().models
            states = {one.version: one.state for one in model.versions}
        agreed = agreed + 1 if states[2] == state else 0
        time.sleep(0.05)


def act(url: str, force: float) -> float:
    """Have clients play episodes in the world as it is; returns their mean return."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        return statistics.mean(threads.map(episode, [url] * EPISODES, [force] * EPISODES))


def episode(url: str, force: float) -> float:
    """Play one episode, and send back its return."""
    name = str(uuid.uuid4())
    env = gym.make("cart:Cart-v0", force=force)
    with PolicyClient(url) as client:
        observation, _ = env.reset()
        total, step, ended = 0.0, 0, False
        while not ended:
            action = client.act([observation], episode=name, step=step).actions[0]
            observation, reward, terminated, truncated, _ = env.step(np.int64(action))
            total += float(reward)
            step += 1
            ended = terminated or truncated
        client.feedback(episode=name, episode_return=total)
    return total


if __name__ == "__main__":
    main(Path(sys.argv[1]))
