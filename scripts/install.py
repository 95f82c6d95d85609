"""Install pinned packages in a virtual environment, and show what pip is doing.

    python3.11 -m scripts.install .venv requirements/train.txt requirements/serve.txt

It runs before any package is there, with the standard library alone.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

from scripts.programs import exit_at_signals, running, say

ABOUT = """\
Installing TensorFlow, Gymnasium, Flask, gunicorn and what these need in {environment}.
About 380 MB are downloaded, once, from the Python Package Index (PyPI) or the index that pip is
configured for. They take 1.7 GB of disk; nothing outside of this folder but pip's cache changes."""
PIP = ("install", "--require-hashes", "--no-input", "--progress-bar", "off")
SHOWN = ("Downloading ", "Using cached ", "Processing ", "Building ", "Installing ")
SECONDS_OF_SILENCE = 3.0


def main(environment: Path, requirements: list[str]) -> int:
    """Install what files of requirements list, with their hashes; the status of what failed."""
    exit_at_signals()
    say(ABOUT.format(environment=environment))
    started, ended = time.monotonic(), threading.Event()
    threading.Thread(target=_show_time, args=(started, ended), daemon=True).start()
    try:
        status = 0
        # The last file of a new environment: one that was interrupted is made again.
        if not (environment / "bin" / "pip").exists():
            with running([sys.executable, "-m", "venv", str(environment)]) as venv:
                status = venv.wait()
        return status or _install(environment, requirements)
    finally:
        ended.set()


def _install(environment: Path, requirements: list[str]) -> int:
    files = [part for name in requirements for part in ("--requirement", name)]
    command = [str(environment / "bin" / "python"), "-m", "pip", *PIP, *files]
    with running(command, stdout=subprocess.PIPE) as pip:
        assert pip.stdout is not None
        for line in map(str.strip, pip.stdout):
            if line.startswith(SHOWN):
                what, _, rest = line.partition(" ")
                say(f"  {what} {rest.split(' (from ')[0].rsplit('/', 1)[-1]:.80}")
        return pip.wait()


def _show_time(started: float, ended: threading.Event) -> None:
    while not ended.wait(SECONDS_OF_SILENCE):
        say(f"  {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
