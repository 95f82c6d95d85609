"""A running service with a shadow: what its workers compare together, and tell."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import numpy as np
import pytest
import urllib3

from serving.client import PolicyClient
from serving.record.comparison import BINS
from serving.registry.selection import Selection, write_selection
from serving.schemas import Comparison
from tests.artefacts import publish
from tests.conftest import Trained, run, running_service, wait_until
from tests.test_act import ROW
from tests.test_metrics_endpoint import Running
from tests.test_promotion import say

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def other_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that was trained from another seed, and decides differently."""
    folder = tmp_path_factory.mktemp("other")
    where = ("--models", str(folder / "models"), "--run-dir", str(folder / "run"))
    finished = run("training", "train", "--seed", "7", *where)
    assert finished.returncode == 0, finished.stderr
    return folder / "models" / "cartpole" / "1"


@pytest.fixture(scope="module")
def running(
    trained: Trained, other_policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("shadow")
    models = shutil.copytree(trained.models, folder / "models")
    publish(other_policy, models / "cartpole" / "2")
    write_selection(models / "cartpole", Selection(1, shadow=2))
    with running_service(models, folder / "log", "--poll-seconds", "0.1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        running = Running(service, models)
        loaded = "shadow of cartpole: version 2"
        wait_until(lambda: service.log.read_text().count(loaded) == 2)  # of both workers
        assert states_of_2(running) == {"shadow"}
        yield running


def states_of_2(running: Running) -> set[str]:
    """The state of version 2 in every worker."""
    reports = [running.send("GET", "/models/cartpole").json()["versions"] for _ in range(10)]
    return {one["state"] for versions in reports for one in versions if one["version"] == 2}


def comparison(running: Running) -> dict[str, Any]:
    answer = running.send("GET", "/models/cartpole/comparison")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    msgspec.convert(found, Comparison)
    return found


def test_both_workers_compare_what_they_decided_and_any_of_them_tells_the_sum(
    running: Running, trained: Trained
) -> None:
    generator = np.random.default_rng(0)
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    low, high = (np.array(card["observations"][name]) for name in ("seen_low", "seen_high"))
    rows = generator.uniform(low, high, (400, 4)).tolist()
    before = running.scrape()
    for row in rows:
        answer = running.act([row])  # over new connections, so that both workers decide
        assert answer["model"]["version"] == 1
    wait_until(lambda: comparison(running)["decisions"] + comparison(running)["skipped"] == 400)
    found = comparison(running)
    assert found["decisions"] >= 200
    assert 0.3 < found["agreement"] < 1
    assert found["kl_divergence"] > 0
    assert (found["served"]["version"], found["shadow"]["version"]) == (1, 2)
    assert found["absolute_value_difference"] >= abs(found["value_difference"])
    disagreements = round((1 - found["agreement"]) * found["decisions"])
    for one, lowest, highest in zip(found["observations"], low, high, strict=True):
        assert (sum(one["decisions"]), sum(one["disagreements"])) == (
            found["decisions"],
            disagreements,
        )
        assert one["edges"][0] == pytest.approx(lowest)
        assert one["edges"][-1] == pytest.approx(highest)
        assert len(one["edges"]) == BINS + 1
    after = running.scrape()
    key = ("policy_shadow_decisions_total", "model=cartpole")
    assert after[key] - before.get(key, 0) == found["decisions"]


def test_the_comparison_is_described_in_openapi(running: Running) -> None:
    api = running.send("GET", "/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Comparison", "components": api["components"]}
    jsonschema_rs.validate(schema, comparison(running))


def test_without_a_shadow_there_is_no_comparison(running: Running) -> None:
    assert running.send("GET", "/models/none/comparison").status == 404
    states = {
        one["version"]: one for one in running.send("GET", "/models/cartpole").json()["versions"]
    }
    assert states[2]["state"] == "shadow"
    assert states[2]["reason"] == "decides about what the served version decides"
    say(running.models, "promote", "2", "--no-shadow")

    def statuses() -> set[int]:
        path = "/models/cartpole/comparison"
        return {running.send("GET", path).status for _ in range(10)}

    wait_until(lambda: statuses() == {404})
    assert (
        urllib3.request("POST", f"{running.service.url}/act", json={"observation": ROW}).status
        == 200
    )
