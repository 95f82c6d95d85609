"""Triton's load generator, which asks for a model's configuration and statistics."""

import re
from pathlib import Path

import pytest

from tests.clients.conftest import KEY, run
from tests.conftest import ROOT

pytestmark = pytest.mark.peers

ENVIRONMENT = ROOT / ".peers" / "perf-analyzer"
PERF_ANALYZER = ENVIRONMENT / "bin" / "perf_analyzer"


def test_perf_analyzer_runs_to_the_end(url: str, tmp_path: Path) -> None:
    # Its package has it for Linux on x86-64; it needs Debian's libb64-0d.
    (libraries,) = ENVIRONMENT.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    said = run(
        *(tmp_path, "env", f"LD_LIBRARY_PATH={libraries}", str(PERF_ANALYZER)),
        *("-m", "cartpole", "-u", url.removeprefix("http://"), "--shape", "observations:1,4"),
        *("-H", f"Authorization: Bearer {KEY}"),
        *("--measurement-interval", "500", "--stability-percentage", "90"),
    )
    assert "Concurrency: 1, throughput:" in said
    sent, counted, executed = (
        int(number) for number in re.findall(r"(?:Request|Inference|Execution) count: (\d+)", said)
    )
    # The windows that it and the service count in are not quite the same.
    assert counted == pytest.approx(sent, rel=0.1, abs=5)
    assert executed == counted  # one connection never has two requests
    steps = re.findall(r"compute (?:input|infer|output) (\d+) usec", said)
    assert len(steps) == 3
    assert all(int(step) > 0 for step in steps)
