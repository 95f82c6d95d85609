"""Canaries in real services: every worker of every replica gives an episode the same version."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service, running_with_key, wait_until
from tests.test_act import ROW
from tests.test_canary import (
    EPISODES,
    SHARE,
    number_of,
    select,
)
from tests.test_metrics_endpoint import Running
from tests.test_promotion import (
    _trials_of_the_session,  # noqa: F401  # a fixture
    lay_out,
    say,
    selected,
)


class Fleet:
    """Two services of the same models folder, of two workers each."""

    def __init__(self, models: Path, services: list[Running]) -> None:
        self.models = models
        self.services = services

    def selections(self) -> set[str]:
        # New connections, so that both workers answer.
        asked = [service for service in self.services for _ in range(10)]
        answers = [service.send("GET", "/models/cartpole") for service in asked]
        assert [answer.data for answer in answers if answer.status != 200] == []
        return {answer.json()["selection"] for answer in answers}

    def select(self, *arguments: str) -> None:
        """Change the selection and wait until every worker has it."""
        (before,) = self.selections()
        say(self.models, "promote", *arguments)
        wait_until(lambda: len(found := self.selections()) == 1 and found != {before})


def has_two_workers(service: Service) -> bool:
    return service.log.read_text().count("serving cartpole version") == 2


@pytest.fixture(scope="module")
def fleet(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("canary")
    models = lay_out(trained, folder)
    (models / "cartpole" / "serve.json").write_text('{"serve": 2}')
    poll = ("--poll-seconds", "0.1")
    with (
        running_service(models, folder / "log", *poll) as one,
        running_service(models, folder / "other", *poll) as other,
    ):
        for service in (one, other):
            PolicyClient(service.url).wait_until_ready(60)
            wait_until(partial(has_two_workers, service))
        yield Fleet(models, [Running(one, models), Running(other, models)])


def ask(pool: urllib3.PoolManager, url: str, episode: str | None) -> int:
    headers = {} if episode is None else {"X-Episode-ID": episode}
    answer = pool.request("POST", f"{url}/act", json={"observation": ROW}, headers=headers)
    assert answer.status == 200
    version: int = answer.json()["model"]["version"]
    return version


@pytest.mark.long
def test_every_worker_of_every_replica_gives_an_episode_the_same_version(fleet: Fleet) -> None:
    fleet.select("4", "--share", str(SHARE))
    episodes = EPISODES[:1_000]
    expected = [4 if number_of(one) < SHARE else 2 for one in episodes]
    for service in fleet.services:
        with urllib3.PoolManager(retries=False) as kept:
            assert [ask(kept, service.service.url, one) for one in episodes] == expected
            assert {ask(kept, service.service.url, None) for _ in range(100)} == {2}
        for episode, version in list(zip(episodes, expected, strict=True))[:40]:
            for _ in range(3):
                with urllib3.PoolManager(retries=False) as fresh:
                    assert ask(fresh, service.service.url, episode) == version


@pytest.mark.long
def test_a_growing_and_an_ending_canary_is_followed_without_an_error(fleet: Fleet) -> None:
    fleet.select("4", "--share", "0.3")
    for service in fleet.services:
        answered = [ask(urllib3.PoolManager(), service.service.url, one) for one in EPISODES[:50]]
        assert answered == [4 if number_of(one) < 0.3 else 2 for one in EPISODES[:50]]
    listed = fleet.services[0].send("POST", "/v2/repository/index").json()
    (of_4,) = (one for one in listed if one["version"] == "4")
    assert (of_4["state"], of_4["reason"]) == ("READY", "0.3 of the episodes")
    status = fleet.services[0].send("GET", "/v1/models/cartpole/versions/4").json()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    fleet.select("4", "--share", "0")
    for service in fleet.services:
        assert {ask(urllib3.PoolManager(), service.service.url, one) for one in EPISODES[:50]} == {
            2
        }


@pytest.mark.long
def test_a_canary_that_breaks_while_it_answers_costs_no_answer(fleet: Fleet) -> None:
    fleet.select("1", "--share", "0.5")
    canary = next(one for one in EPISODES if number_of(one) < 0.5)
    url = fleet.services[0].service.url
    pool = urllib3.PoolManager()
    assert ask(pool, url, canary) == 1
    (fleet.models / "cartpole" / "1" / "saved_model.pb").write_bytes(b"damaged")
    wait_until(lambda: ask(pool, url, canary) == 2)  # every answer is 200
    wait_until(lambda: len(fleet.selections()) == 1)
    (model,) = fleet.services[0].send("GET", "/models").json()["models"]
    (of_1,) = (one for one in model["versions"] if one["version"] == 1)
    assert (of_1["state"], model["version"]) == ("refused", 2)
    assert of_1["reason"].endswith("; the served version answers its 0.5 of the episodes")


@pytest.mark.long
def test_loading_and_unloading_keep_the_canaries(trained: Trained, tmp_path: Path) -> None:
    models = lay_out(trained, tmp_path)
    select(models, (4, 1.0))
    (models / "cartpole").chmod(0o777)
    key = "a-key-that-is-long-enough"
    with running_with_key(models, tmp_path, key, "--workers", "1") as service:
        headers = {"Authorization": f"Bearer {key}", "X-Episode-ID": "any"}

        def post(path: str, content: Any = None) -> urllib3.BaseHTTPResponse:
            url = f"{service.url}{path}"
            return urllib3.request("POST", url, json=content, headers=headers, retries=False)

        assert post("/act", {"observation": ROW}).json()["model"]["version"] == 4
        assert post("/v2/repository/models/cartpole/unload").status == 200
        assert post("/act", {"observation": ROW}).status == 503
        assert post("/v2/repository/models/cartpole/load").status == 200
        assert selected(models)["canaries"] == [{"version": 4, "share": 1.0}]
        assert post("/act", {"observation": ROW}).json()["model"]["version"] == 4
