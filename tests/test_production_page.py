"""The commands of docs/production.md, on a machine that has nothing yet."""

import re
import subprocess
from pathlib import Path

from tests.conftest import ENVIRONMENT, ROOT

# Of this machine; rsync makes the last folder of a path and none above it.
STANDINS = """set -e
ssh() { shift; "$@"; }
rsync() { to=${3#server:}; test -d "$to" || mkdir "$to"; cp -a "$2." "$to"; }
"""


def test_the_first_version_of_a_model_arrives(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "production.md").read_text()
    (block,) = re.findall(r"^((?:    .*\n)*    rsync .*\n(?:    .*\n)*)", page, re.MULTILINE)
    (tmp_path / "models" / "cartpole" / "3").mkdir(parents=True)
    (tmp_path / "models" / "cartpole" / "3" / "saved_model.pb").touch()
    there = tmp_path / "srv" / "actor-critic" / "models"
    there.mkdir(parents=True)
    finished = subprocess.run(
        ["bash", "-c", STANDINS + block.replace("/srv", str(tmp_path / "srv"))],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert [path.relative_to(there) for path in there.rglob("*.pb")] == [
        Path("cartpole/3/saved_model.pb")
    ]
