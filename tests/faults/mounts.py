"""Programs that see file systems of their own."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.tools import skip_outside_ci


def with_mounts(script: str, *arguments: Path) -> list[str]:
    """A command that runs `script`, and then the program that follows, with mounts of their own.

    The script finds the arguments as $1 and on. Skips the test where that is not allowed.
    """
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    allowed = shutil.which("unshare") is not None and (
        subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/mnt"]).returncode == 0
    )
    if not allowed:
        skip_outside_ci("mounting is not allowed here")
    shell = f'{script} && shift {len(arguments)} && exec "$@"'
    return [*unshare, "sh", "-c", shell, "sh", *map(str, arguments)]


def seen_by(process: int, path: Path) -> Path:
    """Where that process's file system can be reached."""
    return Path(f"/proc/{process}/root{path}")


def fill(folder: Path) -> None:
    """Take all the space and all the files that there are left."""
    for number in range(100_000):
        try:
            with (folder / f"filling-{number}").open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
        except OSError:
            if not (folder / f"filling-{number}").exists():
                return
    raise AssertionError(f"{folder} is too large to be filled")
