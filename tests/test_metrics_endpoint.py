"""`GET /metrics`: what was asked and answered, to the last one, whatever becomes of the workers."""

import json
import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from serving.client import PolicyClient
from serving.metrics import Metrics
from serving.registry.selection import Selection, write_selection
from tests.artefacts import edit_card, publish, small_window
from tests.conftest import ROOT, Service, Trained, running_service, wait_until
from tests.test_act import ROW
from tests.test_serving_cli import children
from tests.test_versions import damage_graph

# Of a metric by its name and labels, such as ("policy_swaps_total", "model=cartpole").
Samples = dict[tuple[str, ...], float]

OUTSIDE = [9.0, 0.0, 0.0, 0.0]  # a cart that far out was never seen


class Running:
    """A service of two workers, and the folder that it serves."""

    def __init__(self, service: Service, models: Path) -> None:
        self.service = service
        self.models = models

    def send(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """Ask over a new connection, so that either worker may answer."""
        with urllib3.PoolManager(retries=False) as fresh:
            return fresh.request(method, self.service.url + path, **options)

    def act(self, rows: list[list[float]], **more: Any) -> dict[str, Any]:
        answer = self.send("POST", "/act", json={"observations": rows, **more})
        assert answer.status == 200, answer.data
        content: dict[str, Any] = answer.json()
        return content

    def scrape(self) -> Samples:
        answer = self.send("GET", "/metrics")
        assert answer.status == 200
        return {
            (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
                sample.value
            )
            for family in text_string_to_metric_families(answer.data.decode())
            for sample in family.samples
        }

    def grown(self, action: Callable[[], object]) -> Samples:
        """By how much each count grows when something is done."""
        before = self.scrape()
        action()
        return {key: value - before.get(key, 0.0) for key, value in self.scrape().items()}

    def versions(self) -> dict[str, float]:
        """The served version by the place of the worker."""
        return {
            key[2]: value
            for key, value in self.scrape().items()
            if key[:2] == ("policy_served_version", "model=cartpole")
        }


@pytest.fixture(scope="module")
def running(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("metrics")
    models = shutil.copytree(trained.models, folder / "models")
    edit_card(models / "cartpole" / "1", small_window)
    with running_service(models, folder / "log", "--poll-seconds", "0.1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        running = Running(service, models)
        wait_until(lambda: running.versions() == {"pid=0": 1, "pid=1": 1})
        yield running


def test_requests_are_counted_by_route_and_status(running: Running) -> None:
    def ask() -> None:
        for _ in range(3):
            running.act([ROW])
        for headers in ({"X-Request-ID": "mine"}, {"Accept-Charset": "utf-8"}):  # through Flask
            running.send("POST", "/act", json={"observation": ROW}, headers=headers)
        running.send("POST", "/act", json={"observation": ROW[:3]})
        running.send("POST", "/act", json={"observations": []})
        running.send("POST", "/act", body=b"{", headers={"Content-Type": "application/json"})
        running.send("GET", "/act")
        running.send("GET", "/models/cartpole")
        running.send("GET", "/models/none")
        running.send("POST", "/v1/models/cartpole:predict", json={"instances": [ROW]})
        for number in range(20):
            running.send("GET", f"/no/such/route/{number}")

    grown = running.grown(ask)
    counts = {key[1:]: value for key, value in grown.items() if key[0].endswith("requests_total")}
    assert {key: value for key, value in counts.items() if value} == {
        ("route=/act", "status=200"): 5,
        ("route=/act", "status=422"): 2,
        ("route=/act", "status=400"): 1,
        ("route=/models/<name>", "status=200"): 1,
        ("route=/models/<name>", "status=404"): 1,
        ("route=/v1/models/<tfname:name>:predict", "status=200"): 1,
        ("route=/metrics", "status=200"): 1,  # the scrape before
        ("route=other", "status=404"): 20,
        ("route=other", "status=405"): 1,
    }


def test_seconds_are_a_histogram_by_route(running: Running) -> None:
    started = time.perf_counter()
    grown = running.grown(lambda: [running.act([ROW]) for _ in range(30)])
    elapsed = time.perf_counter() - started
    name, route = "policy_http_request_seconds", "route=/act"
    assert grown[f"{name}_count", route] == 30
    assert 0 < grown[f"{name}_sum", route] < elapsed
    buckets = {
        float(key[1].removeprefix("le=")): value
        for key, value in grown.items()
        if key[0] == f"{name}_bucket" and key[2] == route
    }
    assert sorted(buckets) == [
        *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
        *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf),
    ]
    in_order = [buckets[bound] for bound in sorted(buckets)]
    assert in_order == sorted(in_order)
    assert in_order[-1] == 30


def test_batch_sizes_are_a_histogram(running: Running) -> None:
    grown = running.grown(lambda: [running.act([ROW] * rows) for rows in (1, 4, 5, 1024)])
    model = "model=cartpole"
    assert grown["policy_batch_rows_count", model] == 4
    assert grown["policy_batch_rows_sum", model] == 1 + 4 + 5 + 1024
    within = {
        float(key[1].removeprefix("le=")): value
        for key, value in grown.items()
        if key[0] == "policy_batch_rows_bucket"
    }
    assert within[1] == 1
    assert within[4] == 2
    assert within[16] == within[64] == within[256] == 3
    assert within[1024] == within[4096] == within[math.inf] == 4


def test_actions_entropy_and_value_are_those_of_the_answers(running: Running) -> None:
    rng = np.random.default_rng(0)
    asked = [rng.uniform(-0.05, 0.05, (rows, 4)).tolist() for rows in (1, 3, 50)]
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        answers.extend(running.act(rows, seed=1) for rows in asked)
        answers.extend(running.act(rows, deterministic=True) for rows in asked)

    grown = running.grown(ask)
    names = running.send("GET", "/models/cartpole").json()["policy"]["actions"]["names"]
    taken = Counter(names[action] for answer in answers for action in answer["actions"])
    assert sum(taken.values()) == 2 * 54
    for name in names:
        assert grown["policy_actions_total", f"action={name}", "model=cartpole"] == taken[name]
    entropy = -sum(
        p * math.log(p) for answer in answers for row in answer["action_probabilities"] for p in row
    )
    measured = grown["policy_entropy_nats_total", "model=cartpole"]
    assert measured == pytest.approx(entropy, rel=1e-4)
    assert 0 < measured < 108 * math.log(2)
    value = running.scrape()["policy_state_value", "model=cartpole"]
    assert value == pytest.approx(np.mean(answers[-1]["state_values"]), rel=1e-5)


def test_the_entropy_of_known_probabilities() -> None:
    metrics = Metrics()
    probabilities = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], np.float32)
    metrics.decided(
        "m",
        ["left", "right"],
        actions=np.array([0, 0, 1]),
        probabilities=probabilities,
        state_values=np.array([1.0, 2.0, 6.0], np.float32),
    )
    told = metrics.text()[0].decode()
    # ln 2 + 0 + (ln 4 / 4 + 3 ln(4/3) / 4)
    (line,) = [line for line in told.splitlines() if line.startswith("policy_entropy_nats_total")]
    assert float(line.split()[1]) == pytest.approx(0.693147 + 0.562335, abs=1e-6)
    assert 'policy_actions_total{action="left",model="m"} 2.0' in told
    assert 'policy_state_value{model="m"} 3.0' in told


def test_rows_outside_what_training_saw_are_counted(running: Running) -> None:
    name = ("policy_out_of_range_rows_total", "model=cartpole")
    assert running.grown(lambda: running.act([ROW] * 3))[name] == 0
    grown = running.grown(lambda: running.act([OUTSIDE, [0.0] * 4, [0.0, 0.0, 0.0, 99.0]]))
    assert grown[name] == 2


def test_every_worker_tells_the_same(running: Running) -> None:
    for _ in range(20):
        running.act([ROW])
    told = [running.scrape()["policy_http_request_seconds_count", "route=/act"] for _ in range(20)]
    assert len(set(told)) == 1


def kill_a_worker(running: Running) -> None:
    """Return as soon as there is another in its place."""
    starts = ("policy_worker_starts_total",)
    started = running.scrape()[starts]
    killed, _ = children(running.service.process.pid)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in children(running.service.process.pid))
    wait_until(lambda: running.scrape()[starts] == started + 1)


def test_counts_outlive_a_killed_worker_and_its_present_is_forgotten(running: Running) -> None:
    for _ in range(20):
        running.act([ROW, OUTSIDE])
    lasting = (
        *("policy_http_request", "policy_batch", "policy_actions", "policy_entropy"),
        *("policy_out_of_range", "policy_state_value", "policy_http_shed"),
    )

    def counts() -> Samples:
        about_us = ("route=/metrics", "route=/health/ready")
        return {
            key: value
            for key, value in running.scrape().items()
            if key[0].startswith(lasting) and not set(about_us) & set(key)
        }

    before = counts()
    assert len(before) > 30
    for _ in range(2):
        kill_a_worker(running)
        # The successor has its place.
        wait_until(lambda: running.versions() == {"pid=0": 1, "pid=1": 1})
        assert counts() == before
    os.kill(running.service.process.pid, signal.SIGHUP)
    # The new ones came before the old ones went, whose places are free again.
    wait_until(lambda: running.versions() == {"pid=2": 1, "pid=3": 1})
    assert counts() == before


def test_swaps_and_refusals_are_counted_by_every_worker(running: Running, trained: Trained) -> None:
    swaps = ("policy_swaps_total", "model=cartpole")
    refusals = ("policy_refusals_total", "model=cartpole")
    before = running.scrape()
    publish(trained.model_dir, running.models / "cartpole" / "2")
    wait_until(lambda: list(running.versions().values()) == [2, 2])
    publish(trained.model_dir, running.models / "cartpole" / "3", damage_graph)
    wait_until(lambda: running.scrape()[refusals] == before[refusals] + 2)
    assert running.scrape()[swaps] == before[swaps] + 2
    assert list(running.versions().values()) == [2, 2]


def test_the_documentation_has_every_metric_with_its_type_labels_and_help(
    running: Running,
) -> None:
    publish(running.models / "cartpole" / "1", running.models / "cartpole" / "99")
    wait_until(lambda: list(running.versions().values()) == [99, 99])
    write_selection(running.models / "cartpole", Selection(shadow=1))

    def drift_and_shadow_are_known() -> bool:
        for _ in range(20):
            running.act([ROW] * 64)
        known = {key[0] for key in running.scrape()}
        return {"policy_observation_psi", "policy_shadow_disagreement"} <= known

    wait_until(drift_and_shadow_are_known)
    answer = running.send("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    rows = set()
    for family in text_string_to_metric_families(answer.data.decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.add((name, family.type, frozenset(labels), family.documentation))
        assert not name.endswith("_created")
    documented = set()
    for line in (ROOT / "docs" / "operations.md").read_text().splitlines():
        if line.startswith("| `policy_"):
            name, kind, labels_, text = (cell.strip() for cell in line.strip("| ").split(" | "))
            documented.add(
                (
                    name.strip("`"),
                    kind,
                    frozenset(labels_.replace("`", "").split(", ")) - {""},
                    text,
                )
            )
    assert rows == documented


def test_each_request_refused_as_too_many_is_counted(trained: Trained, tmp_path: Path) -> None:
    options = ("--workers", "1", "--max-in-flight", "1")
    with running_service(trained.models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        answers: Counter[int] = Counter()

        # Large enough to be handled by a thread, while the next ones come.
        body = json.dumps({"observations": [ROW] * 8192})
        headers = {"Content-Type": "application/json"}

        def ask(_: int) -> list[int]:
            with urllib3.PoolManager(retries=False, headers=headers) as own:
                sent = [own.request("POST", f"{service.url}/act", body=body) for _ in range(10)]
            for answer in sent:
                assert answer.status == 200 or answer.headers["Retry-After"] == "1"
            return [answer.status for answer in sent]

        deadline = time.monotonic() + 60
        with ThreadPoolExecutor(4) as clients:
            while not answers[503]:
                assert time.monotonic() < deadline
                for statuses in clients.map(ask, range(4)):
                    answers.update(statuses)
        samples = Running(service, trained.models).scrape()
        assert answers.keys() == {200, 503}
        assert samples[("policy_http_shed_total",)] == answers[503]
        assert samples["policy_http_requests_total", "route=/act", "status=200"] == answers[200]
        assert samples["policy_http_requests_total", "route=none", "status=503"] == answers[503]


def test_openmetrics_is_for_who_asks_for_it(service: Service) -> None:
    asked = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = urllib3.request("GET", f"{service.url}/metrics", headers={"Accept": asked})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(answer.data.decode())}
    assert families["policy_worker_starts"].type == "counter"
    for asked in ("", "application/openmetrics-text; version=abc"):
        plain = urllib3.request("GET", f"{service.url}/metrics", headers={"Accept": asked})
        assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
