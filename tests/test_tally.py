"""What is counted later, while a worker is busy, is counted whole."""

import json
import re
from pathlib import Path

import urllib3

from serving.client import PolicyClient
from tests.conftest import Trained, running_service, wait_until
from tests.faults.wire import Wire, post

REQUESTS = 1_500  # without a pause: more than a worker keeps uncounted


def counted(url: str) -> dict[str, float]:
    """How many requests and decisions each metric tells of."""
    text = urllib3.request("GET", f"{url}/metrics").data.decode()
    patterns = {
        "actions": r"policy_actions_total\{.*\} (\S+)",
        "rows": r"policy_batch_rows_sum\{.*\} (\S+)",
        "requests": r'policy_http_requests_total\{route="/act",status="200"\} (\S+)',
        "wrong": r'policy_http_requests_total\{route="/act",status="422"\} (\S+)',
        "times": r'policy_http_request_seconds_count\{route="/act"\} (\S+)',
    }
    found = {name: re.findall(pattern, text) for name, pattern in patterns.items()}
    return {name: sum(map(float, values)) for name, values in found.items()}


def inferences(url: str) -> tuple[int, int]:
    """How many requests were decided and failed, by the statistics of the version."""
    stats = json.loads(urllib3.request("GET", f"{url}/v2/models/cartpole/stats").data)
    (version,) = stats["model_stats"]
    requests = version["inference_stats"]
    return int(requests["success"]["count"]), int(requests["fail"]["count"])


def test_requests_that_follow_each_other_are_all_counted(trained: Trained, tmp_path: Path) -> None:
    with running_service(trained.models, tmp_path / "log", "--workers", "1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        two_rows, wrong = (
            post(b'{"observations":[[0,0,0,0],[0,0,0,0]]}'),
            post(b'{"observations":[[1]]}'),
        )
        with Wire(service.url) as wire:
            for _ in range(REQUESTS):
                assert wire.ask(two_rows).status == 200
            assert wire.ask(wrong).status == 422
            # Another connection asks at once: the same worker tells what it has not written yet.
            expected = {
                "actions": 2.0 * REQUESTS,
                "rows": 2.0 * REQUESTS,
                "requests": REQUESTS,
                "wrong": 1,
                "times": REQUESTS + 1,
            }
            assert counted(service.url) == expected
        assert inferences(service.url) == (REQUESTS, 1)


def test_any_worker_soon_tells_what_all_have_counted(trained: Trained, tmp_path: Path) -> None:
    with running_service(trained.models, tmp_path / "log", "--workers", "2") as service:
        PolicyClient(service.url).wait_until_ready(60)
        with Wire(service.url) as one, Wire(service.url) as other:
            for _ in range(200):
                assert one.ask(post()).status == other.ask(post()).status == 200
        wait_until(lambda: counted(service.url)["requests"] == 400, seconds=5)
