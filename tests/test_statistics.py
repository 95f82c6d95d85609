"""What loaded versions were asked: `serving/statistics.py`, and Triton's routes that tell it."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from serving.api.app import create_api
from serving.api.decisions import Call
from serving.api.keys import Keys
from serving.api.messages import Request
from serving.api.oip.models import InferenceModels
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from serving.statistics import Inferences, Statistics
from tests.artefacts import edit_card
from tests.conftest import Service, Trained, running_with_key, wait_until

ROW = [0.0] * 4
MANY = b'{"observations": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}'
JSON = {"content-type": "application/json"}
KEY = "a-key-of-a-test-of-statistics"
FIRST = Inferences(3, 30, 2, 100, 200, 300, 1, 50, 1_000)
SECOND = Inferences(1, 5, 1, 10, 20, 30, 0, 0, 900)
SUM = Inferences(4, 35, 3, 110, 220, 330, 1, 50, 1_000)


def test_counts_are_summed_and_the_last_time_is_the_latest(tmp_path: Path) -> None:
    workers = [Statistics(tmp_path, slot) for slot in range(2)]
    workers[0].add("cartpole", 7, "a", FIRST)
    workers[1].add("cartpole", 7, "a", SECOND)
    workers[1].add("cartpole", 8, "a", SECOND)
    for worker in workers:
        assert worker.total("cartpole", 7, "a") == SUM
        assert worker.total("cartpole", 8, "a") == SECOND
        assert worker.total("cartpole", 9, "a") == worker.total("other", 7, "a") == Inferences()


def test_a_successor_counts_on(tmp_path: Path) -> None:
    Statistics(tmp_path, 1).add("cartpole", 7, "a", FIRST)
    successor = Statistics(tmp_path, 1)
    assert successor.total("cartpole", 7, "a") == FIRST
    successor.add("cartpole", 7, "a", SECOND._replace(last_milliseconds=2_000))
    assert successor.total("cartpole", 7, "a") == SUM._replace(last_milliseconds=2_000)


def test_a_version_that_is_unloaded_is_forgotten_by_each_process_for_itself(tmp_path: Path) -> None:
    workers = [Statistics(tmp_path, slot) for slot in range(2)]
    for worker in workers:
        worker.add("cartpole", 7, "a", FIRST)
    workers[0].keep([("cartpole", 8, "a")])
    assert workers[0].total("cartpole", 7, "a") == workers[1].total("cartpole", 7, "a") == FIRST
    workers[1].keep([])
    assert workers[0].total("cartpole", 7, "a") == Inferences()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_successor_forgets_what_its_predecessor_counted_of_an_unloaded_version(
    tmp_path: Path,
) -> None:
    predecessor = Statistics(tmp_path, 1)
    predecessor.add("cartpole", 7, "a", FIRST)
    predecessor.add("cartpole", 8, "a", FIRST)
    successor = Statistics(tmp_path, 1)
    successor.keep([("cartpole", 8, "a")])
    assert successor.total("cartpole", 7, "a") == Inferences()
    assert successor.total("cartpole", 8, "a") == FIRST


def test_without_a_folder_that_can_be_written_a_process_counts_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for statistics in (Statistics(), Statistics(tmp_path / "file")):
        statistics.add("cartpole", 7, "a", FIRST)
        statistics.add("cartpole", 7, "a", SECOND._replace(last_milliseconds=1_000))
        assert statistics.total("cartpole", 7, "a") == SUM


@pytest.fixture(scope="module")
def two_workers(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("statistics")
    shutil.copytree(trained.models, folder / "models")
    with running_with_key(folder / "models", folder, KEY, "--workers", "2") as running:
        yield running.url


def ask(method: str, url: str, content: Any = None) -> Any:
    """Ask on a new connection, which any of the workers may take."""
    with urllib3.PoolManager(headers={"Authorization": f"Bearer {KEY}"}) as pool:
        return pool.request(method, url, json=content).json()


def test_every_worker_tells_what_all_were_asked_in_every_protocol(two_workers: str) -> None:
    url = two_workers
    before = ask("GET", f"{url}/v2/models/cartpole/stats")["model_stats"][0]
    began = time.time_ns() // 1_000_000
    tensor = {"name": "observations", "shape": [3, 4], "datatype": "FP32", "data": [0.0] * 12}
    for _ in range(5):
        assert "actions" in ask("POST", f"{url}/act", {"observation": ROW})
        assert "actions" in ask("POST", f"{url}/models/cartpole/act", {"observations": [ROW] * 2})
        assert "outputs" in ask("POST", f"{url}/v2/models/cartpole/infer", {"inputs": [tensor]})
        assert ask("POST", f"{url}/v1/models/cartpole:predict", {"instances": [ROW] * 4})
        assert ask("POST", f"{url}/act", {"observation": [1]})["status"] == 422
        ask("POST", f"{url}/act", {"nothing": 1})  # says not even what is to be decided
    for _ in range(6):
        (after,) = ask("GET", f"{url}/v2/models/cartpole/stats")["model_stats"]
        assert ask("GET", f"{url}/v2/models/stats")["model_stats"] == [after]
        version = after["version"]
        path = f"/v2/models/cartpole/versions/{version}/stats"
        assert ask("GET", url + path)["model_stats"] == [after]
        assert after["inference_count"] - before["inference_count"] == 5 * (1 + 2 + 3 + 4)
        assert after["execution_count"] - before["execution_count"] == 5 * 4
        assert began <= after["last_inference"] <= time.time_ns() // 1_000_000
        of_steps = after["inference_stats"]
        for name, count in (("success", 20), ("fail", 5), ("queue", 20), ("compute_infer", 20)):
            assert of_steps[name]["count"] - before["inference_stats"][name]["count"] == count
        steps = [of_steps[f"compute_{name}"]["ns"] for name in ("input", "infer", "output")]
        # Nothing is done in a microsecond, and these do not take ten seconds.
        assert all(20_000 < step < 10**10 for step in steps)
        assert of_steps["success"]["ns"] == sum(steps)


def test_requests_that_are_decided_together_are_one_execution(
    trained: Trained, trials: Trials
) -> None:
    metrics = Metrics()
    repository = Repository(Settings(models=trained.models), metrics, trials)
    repository.refresh()
    decisions = create_api(Settings(), repository, metrics, Keys([])).decisions
    found = decisions.match("POST", "/act")
    assert found is not None
    bodies = [b'{"observation": [0, 0, 0, 0]}', b'{"observation": [1]}', b"{", MANY]
    calls = [
        Call(*found, Request("POST", "/act", JSON, body, "127.0.0.1"), "id") for body in bodies
    ]
    assert [answer.status for answer in decisions.answer(calls)] == [200, 422, 400, 200]
    served = "cartpole", repository.policy().version, repository.policy().digest
    total = metrics.statistics.total(*served)
    assert (total.requests, total.failures, total.rows, total.executions) == (2, 1, 4, 1)
    # Both wait for the step of both.
    assert total.decide_nanoseconds % 2 == 0
    decisions.answer(calls[:1])
    assert metrics.statistics.total(*served).executions == 2


def test_what_is_unloaded_is_forgotten(trained: Trained, tmp_path: Path, trials: Trials) -> None:
    models, metrics = tmp_path / "models", Metrics()
    shutil.copytree(trained.models, models)
    repository = Repository(Settings(models=models), metrics, trials)
    repository.refresh()
    served = "cartpole", repository.policy().version, repository.policy().digest
    metrics.statistics.add(*served, FIRST)
    repository.refresh()
    assert metrics.statistics.total(*served) == FIRST
    repository.select("cartpole", "nothing")
    repository.select("cartpole", "newest")
    assert repository.policy().digest == served[-1]
    assert metrics.statistics.total(*served) == Inferences()


def test_what_is_replaced_under_its_number_begins_anew(
    trained: Trained, tmp_path: Path, trials: Trials
) -> None:
    models, metrics = shutil.copytree(trained.models, tmp_path / "models"), Metrics()
    settings = Settings(models=models)
    repository = Repository(settings, metrics, trials)
    repository.refresh()
    decisions = create_api(settings, repository, metrics, Keys([])).decisions
    found = decisions.match("POST", "/act")
    assert found is not None

    def rows_after_a_request() -> int:
        decisions.answer([Call(*found, Request("POST", "/act", JSON, MANY, "127.0.0.1"), "id")])
        told = InferenceModels(repository, settings, metrics.statistics).statistics("cartpole")
        return told.model_stats[0].inference_count

    assert [rows_after_a_request() for _ in range(2)] == [3, 6]
    edit_card(models / "cartpole" / "1", lambda card: card.update(created="another day"))
    repository.refresh()
    assert rows_after_a_request() == 3


def test_what_is_not_loaded_has_no_statistics(two_workers: str) -> None:
    stats = f"{two_workers}/v2/models"
    assert "99" in ask("GET", f"{stats}/cartpole/versions/99/stats")["error"]
    assert "nothing" in ask("GET", f"{stats}/nothing/stats")["error"]
    ask("POST", f"{two_workers}/v2/repository/models/cartpole/unload")
    wait_until(lambda: "error" in ask("GET", f"{stats}/cartpole/stats"))


def test_the_configuration_is_what_tritons_tools_ask_for(service: Service) -> None:
    url = f"{service.url}/v2/models/cartpole"
    config = urllib3.request("GET", f"{url}/config").json()
    metadata = urllib3.request("GET", url).json()
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "observations", "data_type": "TYPE_FP32", "dims": [-1, 4]}]
    assert [tensor["name"] for tensor in config["output"]] == [
        tensor["name"] for tensor in metadata["outputs"]
    ]
    actions = next(tensor for tensor in config["output"] if tensor["name"] == "actions")
    assert actions == {"name": "actions", "data_type": "TYPE_INT64", "dims": [-1]}
    version = metadata["versions"][0]
    assert urllib3.request("GET", f"{url}/versions/{version}/config").json() == config
    extensions = urllib3.request("GET", f"{service.url}/v2").json()["extensions"]
    assert {"model_configuration", "statistics"} <= set(extensions)
