"""The benchmark of one decision's parts."""

import re

from tests.conftest import Trained, run


def test_every_part_is_timed_and_the_decision_is_split(trained: Trained) -> None:
    finished = run("benchmarks.decision", str(trained.model_dir), "--rounds", "1")
    assert finished.returncode == 0, finished.stderr
    heading, *parts, split = finished.stdout.splitlines()
    assert heading.split() == ["part", "us", "a", "call"]
    assert len(parts) == 16
    assert all(re.search(r" \d[\d,.]* \(\d[\d,.]*\.\.\d[\d,.]*\)$", line) for line in parts)
    assert re.fullmatch(r"decision routes: \d+ us a call and \d+ us a request", split)
