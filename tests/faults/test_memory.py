"""The memory of a worker: what it takes at most, and what it gives back."""

import json
import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.registry.selection import Selection, write_selection
from tests.artefacts import publish
from tests.conftest import Service, Trained, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.wire import Wire, children, memory_mib, metric, post

SWAPS = 100
# Measured: 0.3 MiB in 100 swaps, and 28 MiB while the kernels of old versions were kept.
TOLERANCE_MIB = 10.0


@pytest.mark.long
def test_memory_does_not_grow_with_swaps(trained: Trained, tmp_path: Path, tell: Tell) -> None:
    folder = tmp_path / "models" / "cartpole"
    folder.mkdir(parents=True)
    for version in (0, 1):
        publish(trained.model_dir, folder / str(version))
    options = ("--workers", "1", "--poll-seconds", "0.02")
    with running_service(folder.parent, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        (worker,) = children(service.process.pid)

        def swap(times: int) -> None:
            for number in range(times):
                write_selection(folder, Selection(serve=number % 2))
                wait_until(partial(is_served, service, number % 2))

        swap(20)
        before = memory_mib(worker)
        (swaps_before,) = metric(service.url, "policy_swaps_total").values()
        swap(SWAPS)
        after = memory_mib(worker)
        (swaps_after,) = metric(service.url, "policy_swaps_total").values()
        tell(f"{SWAPS} swaps: {before:.1f} MiB before, {after:.1f} MiB after")
        assert swaps_after - swaps_before == SWAPS
        assert after - before < TOLERANCE_MIB
        assert children(service.process.pid) == [worker]


@pytest.mark.long
def test_many_requests_at_once_take_no_more_memory_than_the_docs_say(
    trained: Trained, tmp_path: Path, tell: Tell
) -> None:
    rows = 32_000  # of one byte a number: just below the size of a large request
    tensor = {"name": "observations", "shape": [rows, 4], "datatype": "UINT8"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 4 * rows}}]})
    body = head.encode() + bytes(4 * rows)
    lines = (
        "POST /v2/models/cartpole/infer HTTP/1.1",
        "Host: x",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(body)}",
    )
    request = "\r\n".join([*lines, "", ""]).encode() + body
    with running_service(trained.models, tmp_path / "log", "--workers", "1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        (worker,) = children(service.process.pid)
        with ExitStack() as opened:
            wires = [opened.enter_context(Wire(service.url)) for _ in range(100)]
            for part in (request[:-1], request[-1:]):
                for wire in wires:
                    wire.send(part)
            assert {wire.answer().status for wire in wires} == {200}
        status = Path(f"/proc/{worker}/status").read_text()
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6
        tell(f"100 requests of {rows} rows at once: {peak:.0f} MB")
        assert peak < 550


def is_served(service: Service, version: int) -> bool:
    with Wire(service.url) as wire:
        served: int = wire.ask(post()).json()["model"]["version"]
    return served == version
