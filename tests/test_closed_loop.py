"""The example of the closed loop: the service recovers by itself from a world that has changed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT, run


@pytest.mark.long
def test_a_service_recovers_from_a_change_of_its_world(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "examples/closed_loop.py", str(tmp_path)],
        cwd=ROOT,
        # As in a shell, whatever the tests are run with.
        env={name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    returns = [float(number) for number in re.findall(r"mean return (\d+)", finished.stdout)]
    before, after, recovered = returns
    assert after < 475.0 <= before
    assert recovered >= 475.0
    assert "version 2 is served from now on" in finished.stdout
    # Every decision of it is on record, by both versions, and can be proved.
    models = ("--models", str(tmp_path / "models"))
    proved = run("serving", "replay", str(tmp_path / "record"), *models)
    assert proved.returncode == 0, proved.stdout
    record = b"".join(path.read_bytes() for path in (tmp_path / "record").iterdir())
    assert {int(version) for version in re.findall(rb'"version":(\d+)', record)} == {1, 2}
