"""The user that runs a tested service: an ordinary one, also where root runs the tests."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

NO_CAPABILITIES = ("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups")


def ordinary_user() -> tuple[str, ...]:
    """A command that runs another as an ordinary user; empty if the tests are run by one.

    Root becomes `nobody` if that user can read the interpreter and this checkout. Otherwise, such
    as with an interpreter below /root, root gives up its capabilities and keeps its files: without
    capabilities, their permissions hold for root too.
    """
    if os.geteuid() != 0:
        return ()
    return ("setpriv", *(NOBODY if changes_user() else ()), *NO_CAPABILITIES)


@cache
def changes_user() -> bool:
    """Whether services are run by another user than the tests."""
    # Python takes another standard library or another folder if it cannot use the first one.
    code = "import sys, tempfile, serving.cli; print(sys.base_prefix, tempfile.gettempdir())"
    command = ("setpriv", *NOBODY, *NO_CAPABILITIES, sys.executable, "-c", code)
    return os.geteuid() == 0 and (
        subprocess.run(
            command, cwd=Path(__file__).parent.parent, capture_output=True, text=True
        ).stdout.rstrip("\n")
        == f"{sys.base_prefix} {tempfile.gettempdir()}"
    )


def let_in(folder: Path) -> None:
    """Let every user read a folder for temporary files, and reach it."""
    for path in (folder, *folder.parents):
        if path.exists() and Path(tempfile.gettempdir()) in path.parents:
            path.chmod(path.stat().st_mode | 0o055)
