"""Canaries: a share of the episodes is answered by another version, the same one everywhere."""

import hashlib
import json
import math
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.api.messages import Request
from serving.metrics import Metrics
from serving.policy.decide import DecisionRequest
from serving.registry.repository import Repository
from serving.registry.selection import (
    Canary,
    Selection,
    write_selection,
)
from serving.registry.store import Store
from serving.registry.trial import Trials
from serving.registry.versions import Versions
from serving.settings import Settings
from tests.artefacts import edit_card, publish
from tests.conftest import Trained
from tests.test_act import ROW
from tests.test_promotion import (
    _trials_of_the_session,  # noqa: F401  # a fixture
    lay_out,
    mistake,
    say,
)
from tests.test_repository_api import INFER, INSTANCES

EPISODES = [f"episode-{number}" for number in range(20_000)]
SHARE = 0.1


def number_of(episode: str) -> float:
    """The number in [0, 1) of an episode of cartpole, as docs/operations.md describes it."""
    return int(hashlib.sha256(f"cartpole/{episode}".encode()).hexdigest()[:16], 16) / 2**64


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Versions 1, 2 and 4 are good; 3 is damaged, 5 not solved; 2 is served."""
    models = lay_out(trained, tmp_path)
    select(models)
    return models


def select(models: Path, *canaries: tuple[int, float]) -> None:
    """Serve version 2 with these canaries, without the commands' checks."""
    listed = tuple(Canary(*one) for one in canaries)
    write_selection(models / "cartpole", Selection(2, canaries=listed))


Load = Callable[[Path], Repository]


@pytest.fixture
def load(trials: Trials) -> Load:
    """Load what is selected, as a worker does that starts."""

    def load(models: Path) -> Repository:
        repository = Repository(Settings(models=models), Metrics(), trials)
        repository.refresh()
        return repository

    return load


def versions_of(repository: Repository) -> list[int]:
    return [repository.choose(episode=one).policy.version for one in EPISODES]


def expect_share(answered: list[int], version: int, share: float) -> None:
    """Five standard deviations of the binomial: a right share fails once in a million runs."""
    found, count = answered.count(version), len(answered)
    assert abs(found - share * count) <= 5 * math.sqrt(count * share * (1 - share))


def states(repository: Repository) -> dict[int, tuple[str, str]]:
    return {one.version: (one.state, one.reason) for one in repository.report("cartpole").versions}


def test_each_canary_gets_its_share_of_the_episodes_and_the_served_version_the_rest(
    models: Path, load: Load
) -> None:
    assert say(models, "promote", "4", "--share", "0.1") == (
        "cartpole: version 4 answers 0.1 of the episodes from now on\n"
    )
    say(models, "promote", "1", "--share", "0.25")
    repository = load(models)
    answered = versions_of(repository)
    expect_share(answered, 4, 0.1)
    expect_share(answered, 1, 0.25)
    expect_share(answered, 2, 0.65)
    expected = [4 if n < 0.1 else 1 if n < 0.35 else 2 for n in map(number_of, EPISODES)]
    assert answered == expected
    assert states(repository)[4] == ("canary", "0.1 of the episodes")
    assert states(repository)[2] == ("served", "version 2 is selected")
    assert repository.policy().version == 2  # without an episode


def test_shares_may_leave_nothing_to_the_served_version(models: Path, load: Load) -> None:
    # 0.7 + 0.1 + 0.2 is less than 1 if it is rounded twice.
    select(models, (4, 0.7), (1, 0.1))
    publish(models / "cartpole" / "1", models / "cartpole" / "6")
    say(models, "promote", "6", "--share", "0.2")
    assert {1, 4, 6} == set(versions_of(load(models)))
    assert mistake(models, "promote", "6", "--share", "0.21") == (
        "the shares add up to more than 1: 0.7 of version 4, 0.1 of version 1, 0.21 of version 6"
    )


def test_a_canary_whose_share_grows_keeps_its_episodes(models: Path, load: Load) -> None:
    select(models, (4, 0.1))
    before = versions_of(load(models))
    select(models, (4, 0.3))
    after = versions_of(load(models))
    assert [new for old, new in zip(before, after, strict=True) if old == 4] == [4] * before.count(
        4
    )
    expect_share(after, 4, 0.3)


def test_the_digest_of_the_selection_is_equal_where_all_episodes_get_the_same(
    models: Path, load: Load, trained: Trained
) -> None:
    digests: list[str] = []

    def differs() -> None:
        digest = load(models).report("cartpole").selection
        assert digest not in digests
        digests.append(digest)

    for canaries in ([], [(4, 0.1)], [(4, 0.2)], [(4, 0.2), (1, 0.2)], [(1, 0.2), (4, 0.2)]):
        select(models, *canaries)
        differs()
    shutil.rmtree(models / "cartpole" / "1")
    publish(trained.model_dir, models / "cartpole" / "1", rename_observation)
    differs()
    select(models)
    assert load(models).report("cartpole").selection == digests[0]
    write_selection(models / "cartpole", Selection("newest"))  # which is 4
    differs()
    publish(trained.model_dir, models / "cartpole" / "6")
    differs()


def rename_observation(model_dir: Path) -> None:
    def rename(card: dict[str, Any]) -> None:
        card["observations"]["names"][0] = "other"

    edit_card(model_dir, rename)


def test_a_worker_without_the_canary_has_another_digest(models: Path, load: Load) -> None:
    select(models, (4, 0.1))
    healthy = load(models).report("cartpole").selection
    (models / "cartpole" / "4" / "saved_model.pb").write_bytes(b"damaged")
    assert load(models).report("cartpole").selection != healthy


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (3, "refused: saved_model.pb does not match its checksum on the card; the served"),
        (5, "refused: its card says that it is not solved; the served version answers its 0.5"),
        (77, "refused: it is not there; the served version"),
        (6, "canary: answers no episodes: its observations are not those of the served version"),
    ],
)
def test_a_canary_that_cannot_answer_costs_no_answer_and_is_told(
    models: Path, load: Load, trained: Trained, version: int, reason: str
) -> None:
    publish(trained.model_dir, models / "cartpole" / "6", rename_observation)
    select(models, (version, 0.5), (4, 0.25))
    repository = load(models)
    # The other canary keeps its interval.
    expected = [4 if 0.5 <= n < 0.75 else 2 for n in map(number_of, EPISODES)]
    assert versions_of(repository) == expected
    assert ": ".join(states(repository)[version]).startswith(reason)
    shares = {one.version: one.share for one in repository.report("cartpole").versions}
    assert {version: share for version, share in shares.items() if share} == {2: 0.75, 4: 0.25}
    loaded = repository.loaded("cartpole")
    repository.refresh()
    assert repository.loaded("cartpole") == loaded  # not loaded again at each look


@pytest.mark.long
def test_what_a_canary_is_can_be_asked_while_it_begins_and_ends(models: Path, load: Load) -> None:
    select(models, (4, 0.3))
    repository = load(models)
    ended = threading.Event()

    def ask() -> set[tuple[str, str]]:
        found = set()
        while not ended.is_set():
            found.add(states(repository)[4])
        return found

    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(ask)
        for number in range(40):
            select(models, *([(4, 0.3)] if number % 2 else []))
            repository.refresh()
        ended.set()
        waiting = ("waiting", "not selected: version 2 is selected")
        assert asked.result() == {("canary", "0.3 of the episodes"), waiting}


def decoded(repository: Repository, path: str, content: Any, episode: str) -> DecisionRequest:
    api = create_api(Settings(), repository, Metrics(), Keys([]))
    found = api.decisions.match("POST", path)
    assert found is not None
    route, parts = found
    fields = {"content-type": "application/json", "x-episode-id": episode}
    request = Request("POST", path, fields, json.dumps(content).encode(), "127.0.0.1")
    decision, _ = route.decode(request, **parts)
    return decision


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/act", {"observation": ROW}),
        ("/models/cartpole/act", {"observation": ROW}),
        ("/v1/models/cartpole:predict", INSTANCES),
        ("/v2/models/cartpole/infer", INFER),
    ],
)
def test_every_protocol_gives_an_episode_its_version_and_the_record_the_digest(
    models: Path, load: Load, path: str, content: Any
) -> None:
    select(models, (4, 0.5))
    repository = load(models)
    digest = repository.report("cartpole").selection
    for episode in EPISODES[:20]:
        request = decoded(repository, path, content, episode)
        version = 4 if number_of(episode) < 0.5 else 2
        assert (request.policy.version, request.selection, request.episode) == (
            *(version, digest),
            episode,
        )


@pytest.mark.parametrize(
    ("path", "content", "version"),
    [
        ("/v1/models/cartpole/versions/2:predict", INSTANCES, 2),
        ("/v1/models/cartpole/labels/stable:predict", INSTANCES, 2),
        ("/v1/models/cartpole/labels/other:predict", INSTANCES, 1),
        ("/v2/models/cartpole/versions/2/infer", INFER, 2),
        ("/v2/models/cartpole/versions/4/infer", INFER, 4),
    ],
)
def test_a_version_that_the_client_names_goes_before_the_canary(
    models: Path, load: Load, path: str, content: Any, version: int
) -> None:
    selection = Selection(2, {"other": 1}, (Canary(4, 1.0),))
    write_selection(models / "cartpole", selection)
    request = decoded(load(models), path, content, "any")
    assert (request.policy.version, request.selection) == (version, "")


def test_the_field_in_the_body_goes_before_the_header(models: Path, load: Load) -> None:
    select(models, (4, 0.5))
    canary = next(one for one in EPISODES if number_of(one) < 0.5)
    served = next(one for one in EPISODES if number_of(one) >= 0.5)
    repository = load(models)
    for in_body, in_header, version in [(canary, served, 4), (served, canary, 2)]:
        content = {"observation": ROW, "episode": in_body}
        assert decoded(repository, "/act", content, in_header).policy.version == version


def test_neither_the_served_version_nor_the_old_copy_waits_for_a_canary_to_be_examined(
    models: Path, trained: Trained
) -> None:
    def publish_6(note: str) -> None:
        publish(
            trained.model_dir,
            models / "cartpole" / "6",
            lambda folder: edit_card(folder, lambda card: card.update(note=note)),
        )

    def answering() -> tuple[int, str]:
        policy = versions.choose(None, None, "any").policy
        return policy.version, policy.digest

    def examine() -> str:
        """Examine what the versions wait for; its digest."""
        digest = versions.refresh()
        assert digest is not None
        before = answering() if versions.served else None
        store.judge(digest, lambda _: None)
        assert before == (answering() if versions.served else None)
        return digest[:12]

    select(models, (6, 1.0))
    publish_6("first")
    with Store() as store:
        versions = Versions(models / "cartpole", Settings(models=models), Metrics(), store)
        of_2, first = examine(), examine()
        assert answering() == (2, of_2)
        assert versions.refresh() is None
        assert answering() == (6, first)
        shutil.rmtree(models / "cartpole" / "6")
        publish_6("second")
        second = examine()
        assert answering() == (6, first)
        assert versions.refresh() is None
        assert answering() == (6, second)
