"""Install pinned packages in a virtual environment, and show what pip is doing.

    python3.11 -m scripts.install .venv requirements/train.txt requirements/serve.txt

It runs before any package is installed, with the standard library alone.
"""

import sys
from pathlib import Path

from scripts.programs import exit_at_signals, run_and_show, say

ABOUT = """\
Installing TensorFlow, Gymnasium, Flask, gunicorn and what these need in {environment}.
About 380 MB are downloaded, once, from the Python Package Index (PyPI) or the index that pip is
configured for. They take 1.7 GB of disk; nothing outside of this folder but pip's cache changes."""
PIP = ("install", "--require-hashes", "--no-input", "--progress-bar", "off")
ORDINARY = ("Collecting ", "Requirement already satisfied", "Obtaining ", "Successfully ")
WITH_A_FILE = ("Downloading ", "Using cached ", "Processing ")


def main(environment: Path, requirements: list[str]) -> int:
    """Install what requirements files list, checking hashes; return the exit status."""
    exit_at_signals()
    say(ABOUT.format(environment=environment))
    # pip comes last into a new environment: one that was interrupted is made again.
    if not (environment / "bin" / "pip").exists():
        status = run_and_show([sys.executable, "-m", "venv", str(environment)])
        if status:
            return status
    files = [part for name in requirements for part in ("--requirement", name)]
    return run_and_show([str(environment / "bin" / "python"), "-m", "pip", *PIP, *files], _brief)


def _brief(line: str) -> str | None:
    """What to show of a line of pip's output: names of files, and everything but routine lines."""
    text = line.strip()
    if text.startswith(WITH_A_FILE):
        what, _, rest = text.partition(" ")
        return f"  {what} {rest.split(' (from ')[0].rsplit('/', 1)[-1]:.80}"
    if text.startswith("Installing collected"):
        return "  Installing what was downloaded"
    return None if text.startswith(ORDINARY) else line


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
