"""The shadow: compared with the served version, at no cost that a client can see."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.metrics import Metrics
from serving.policy.decide import DecisionRequest, SamplingSpec, decide_many
from serving.policy.outputs import PolicyOutputs
from serving.record.shadow import MAX_ROWS, RETRY_SECONDS, Shadows
from serving.registry.repository import Repository
from serving.registry.selection import Canary, Selection, write_selection
from serving.registry.trial import Trials
from serving.schemas import Comparison
from serving.settings import Settings
from serving.statistics import SharedArrays
from tests.artefacts import edit_card, publish
from tests.conftest import Trained
from tests.test_promotion import (
    _trials_of_the_session,  # noqa: F401  # a fixture
    lay_out,
    mistake,
    say,
    selected,
)


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Versions 1, 2 and 4 are good; 3 is damaged, 5 not solved; 2 is served, 4 is its shadow."""
    models = lay_out(trained, tmp_path)
    write_selection(models / "cartpole", Selection(2, shadow=4))
    return models


class Decided:
    """A repository whose served version decides, and its shadow after it."""

    def __init__(self, models: Path, trials: Trials, folder: Path | None = None) -> None:
        self.metrics = Metrics(comparisons=SharedArrays(folder, dtype=np.float64))
        self.repository = Repository(Settings(models=models), self.metrics, trials)
        self.repository.refresh()
        self.shadows = Shadows(self.repository, self.metrics)

    def decide(self, *rows: int, named: Collection[int] = ()) -> None:
        """Decide about so many rows in each of several requests; some name the version."""
        policy = self.repository.policy()
        requests = [
            DecisionRequest(
                policy,
                np.full((count, 4), 0.001 * i, np.float32),
                SamplingSpec(0, deterministic=True),
                selection="" if i in named else "000000000000",
            )
            for i, count in enumerate(rows)
        ]
        self.shadows.offer(requests, decide_many(requests, 10_000).results)

    def comparison(self) -> Comparison:
        return self.shadows.comparison("cartpole")


@pytest.fixture
def decided(models: Path, trials: Trials) -> Decided:
    return Decided(models, trials)


def test_what_has_no_room_and_what_comes_while_busy_is_skipped_and_counted(
    decided: Decided,
) -> None:
    decided.decide(3)
    decided.decide(MAX_ROWS)
    decided.decide(1)
    decided.shadows.run(is_busy=True)
    assert (decided.comparison().decisions, decided.comparison().skipped) == (0, 4)
    assert decided.comparison().agreement is None
    decided.shadows.run(is_busy=False)
    found = decided.comparison()
    assert (found.decisions, found.skipped, found.agreement) == (MAX_ROWS, 4, 1.0)
    assert [sum(one.decisions) for one in found.observations] == [MAX_ROWS] * 4


def test_what_was_compared_makes_room_for_as_much_again(decided: Decided) -> None:
    for _ in range(2):
        decided.decide(MAX_ROWS)
        decided.shadows.run(is_busy=False)
    found = decided.comparison()
    assert (found.decisions, found.skipped) == (2 * MAX_ROWS, 0)


def test_a_successor_continues_a_comparison_until_the_shadow_ends(
    models: Path, trials: Trials, tmp_path: Path
) -> None:
    predecessor = Decided(models, trials, tmp_path / "comparisons")
    predecessor.decide(3)
    predecessor.shadows.run(is_busy=False)
    successor = Decided(models, trials, tmp_path / "comparisons")  # it decides nothing
    assert successor.comparison().decisions == 3
    for shadow in (None, 4):
        write_selection(models / "cartpole", Selection(2, shadow=shadow))
        successor.repository.refresh()
    assert successor.comparison().decisions == 0


def test_a_version_tells_all_that_it_is(models: Path, trials: Trials) -> None:
    selection = Selection(2, {"next": 4}, canaries=(Canary(4, 0.25),), shadow=4)
    write_selection(models / "cartpole", selection)
    reports = Decided(models, trials).repository.report("cartpole").versions
    (found,) = (one for one in reports if one.version == 4)
    assert (found.state, found.share) == ("canary", 0.25)
    assert found.reason == (
        "0.25 of the episodes; decides about what the served version decides; labelled next"
    )


def test_a_shadow_takes_a_two_hundredth_of_the_time(
    decided: Decided, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = decided.repository.shadow(decided.repository.policy())
    assert shadow is not None
    act, now = shadow.act, 1_000.0

    def take_a_second(*arguments: Any) -> PolicyOutputs:
        nonlocal now
        now += 1
        return act(*arguments)

    monkeypatch.setattr("serving.record.shadow.time.monotonic", lambda: now)
    monkeypatch.setattr(shadow, "act", take_a_second)
    decided.decide(2)
    assert decided.shadows.is_due()
    decided.shadows.run(is_busy=False)
    now = 1_001 + 199.0
    assert not decided.shadows.is_due()
    now = 1_001 + 200.0
    assert decided.shadows.is_due()


def test_what_clients_ask_of_a_version_that_they_name_is_not_compared(decided: Decided) -> None:
    decided.decide(5, named={0})
    decided.decide(2, 7, 4, 9, named={1, 3})
    decided.shadows.run(is_busy=False)
    found = decided.comparison()
    assert (found.decisions, found.skipped, found.agreement) == (2 + 4, 0, 1.0)


def test_a_shadow_that_fails_is_counted_logged_once_and_put_off(
    decided: Decided, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shadow = decided.repository.shadow(decided.repository.policy())
    assert shadow is not None
    now = 1_000.0
    monkeypatch.setattr("serving.record.shadow.time.monotonic", lambda: now)

    def fail(*_: object) -> PolicyOutputs:
        raise RuntimeError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(shadow, "act", fail)
        for _ in range(2):
            decided.decide(2)
            decided.shadows.run(is_busy=False)
            decided.decide(3)  # while it rests
            decided.shadows.run(is_busy=False)
            now += RETRY_SECONDS
    assert caplog.text.count("the shadow cartpole version 4 failed; paused for 60 s") == 1
    found = decided.comparison()
    assert (found.decisions, found.skipped, found.failures) == (0, 10, 2)
    decided.decide(2)
    decided.shadows.run(is_busy=False)
    assert decided.comparison().decisions == 2


def test_the_counts_begin_anew_with_other_versions_and_nothing_is_kept_of_the_old(
    decided: Decided, models: Path
) -> None:
    decided.decide(2)
    decided.shadows.run(is_busy=False)
    assert decided.comparison().decisions == 2
    write_selection(models / "cartpole", Selection(2, shadow=1))
    decided.repository.refresh()
    assert decided.comparison().decisions == 0
    decided.shadows.run(is_busy=False)
    write_selection(models / "cartpole", Selection(2, shadow=4))
    decided.repository.refresh()
    assert decided.comparison().decisions == 0


def test_a_shadow_is_selected_and_ended_by_commands(models: Path) -> None:
    (models / "cartpole" / "serve.json").write_text('{"serve": 2}')
    printed = say(models, "promote", "4", "--shadow")
    assert printed == "cartpole: version 4 is the shadow from now on\n"
    assert selected(models) == {"serve": 2, "labels": {}, "shadow": 4}
    printed = say(models, "promote", "4", "--no-shadow")
    assert printed == "cartpole: version 4 is no longer the shadow\n"
    assert selected(models) == {"serve": 2, "labels": {}}
    say(models, "promote", "4", "--shadow")
    printed = say(models, "promote", "4")
    assert printed == "cartpole: version 4 is served from now on, no longer as the shadow\n"
    assert selected(models) == {"serve": 4, "labels": {}}


def of_another_environment(model_dir: Path) -> None:
    edit_card(model_dir, lambda card: card.update(environment="Acrobot-v1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["6", "--shadow"], "its environment is Acrobot-v1, not that of the served version"),
        (["3", "--shadow"], "saved_model.pb does not match its checksum on the card"),
        (["2", "--shadow"], "version 2 is served: it cannot be a shadow too"),
        (["4", "--shadow", "--share", "0.1"], "--share and --shadow cannot be used together"),
        (["--shadow"], "a shadow needs a version"),
        (["1", "--no-shadow"], "version 1 is not the shadow"),
    ],
)
def test_what_cannot_be_a_shadow_is_not_selected(
    models: Path, trained: Trained, arguments: list[str], message: str
) -> None:
    publish(trained.model_dir, models / "cartpole" / "6", of_another_environment)
    before = selected(models)
    assert message in mistake(models, "promote", *arguments)
    assert selected(models) == before


def test_what_is_no_version_ends_no_shadow_where_there_is_none(models: Path) -> None:
    write_selection(models / "cartpole", Selection(2))
    assert "version latest is not the shadow" in mistake(models, "promote", "latest", "--no-shadow")
    assert selected(models)["serve"] == 2


def test_a_shadow_of_another_environment_in_the_file_compares_nothing_and_is_told(
    models: Path, trained: Trained, trials: Trials
) -> None:
    publish(trained.model_dir, models / "cartpole" / "6", of_another_environment)
    write_selection(models / "cartpole", Selection(2, shadow=6))
    decided = Decided(models, trials)
    assert decided.repository.shadow(decided.repository.policy()) is None
    reports = {one.version: one for one in decided.repository.report("cartpole").versions}
    assert reports[6].state == "shadow"
    assert reports[6].reason.startswith("compares nothing: its environment is Acrobot-v1")


def test_a_shadow_that_is_missing_is_told_and_costs_nothing(models: Path, trials: Trials) -> None:
    write_selection(models / "cartpole", Selection(2, shadow=77))
    decided = Decided(models, trials)
    decided.decide(1)
    assert not decided.shadows.is_due()
    reports = {one.version: one for one in decided.repository.report("cartpole").versions}
    assert (reports[77].state, reports[77].reason[:15]) == ("refused", "it is not there")
