"""The benchmark of the parts of a request."""

import re

from tests.conftest import Trained, run


def test_every_part_is_timed_and_the_fast_lane_per_call_and_per_request(trained: Trained) -> None:
    finished = run("benchmarks.decision", str(trained.model_dir), "--rounds", "1")
    assert finished.returncode == 0, finished.stderr
    heading, *parts, split = finished.stdout.splitlines()
    assert heading.split() == ["part", "us", "per", "call"]
    assert len(parts) == 13
    assert all(re.search(r" \d[\d,.]* \(\d[\d,.]*\.\.\d[\d,.]*\)$", line) for line in parts)
    assert re.fullmatch(r"fast lane: \d+ us per call and \d+ us per request", split)
