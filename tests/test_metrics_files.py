"""The files of a worker's metrics while it starts."""

import os
import subprocess
import sys
from pathlib import Path

from serving.server.master import METRICS_BYTES, METRICS_FOLDER, METRICS_KINDS
from tests.conftest import ROOT

WORKERS = 30
START = f"""
from types import SimpleNamespace
from serving.server.master import post_fork
for slot in range({WORKERS}):
    post_fork(None, SimpleNamespace(slot=slot, app=SimpleNamespace()))
"""


def test_a_scrape_finds_the_files_of_a_new_worker_whole_or_not_at_all(tmp_path: Path) -> None:
    environment = os.environ | {METRICS_FOLDER: str(tmp_path)}
    sizes: set[int] = set()

    def record_sizes() -> None:
        sizes.update(path.stat().st_size for path in tmp_path.glob("*.db"))

    with subprocess.Popen([sys.executable, "-c", START], cwd=ROOT, env=environment) as process:
        while process.poll() is None:
            record_sizes()
    record_sizes()
    assert process.returncode == 0
    assert sizes == {METRICS_BYTES}
    assert len(list(tmp_path.iterdir())) == WORKERS * len(METRICS_KINDS)
