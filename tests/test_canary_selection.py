"""How canaries are selected: by `promote --share`, and in the selection's file."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from serving.policy.artefact import Actions, read
from serving.registry.assignment import difference, shadow_difference
from serving.registry.selection import (
    Selection,
    SelectionError,
    read_selection,
    write_selection,
)
from tests.artefacts import edit_card, publish
from tests.conftest import Trained
from tests.test_canary import rename_observation, select
from tests.test_promotion import (
    _trials_of_the_session,  # noqa: F401  # a fixture
    lay_out,
    mistake,
    say,
    selected,
)

NAMES = ["push_left", "push_right"]


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Versions 1, 2 and 4 are good; 3 is damaged, 5 not solved; 2 is served."""
    models = lay_out(trained, tmp_path)
    select(models)
    return models


def test_a_canary_is_ended_by_no_share_by_its_promotion_and_by_a_rollback(models: Path) -> None:
    select(models, (4, 0.25), (1, 0.25))
    of_1 = {"version": 1, "share": 0.25}
    assert selected(models)["canaries"] == [{"version": 4, "share": 0.25}, of_1]
    # Also of a version that is gone.
    shutil.rmtree(models / "cartpole" / "4")
    printed = say(models, "promote", "4", "--share", "0")
    assert printed == "cartpole: version 4 is no longer a canary\n"
    assert selected(models)["canaries"] == [of_1]
    printed = say(models, "promote", "1")
    assert printed == "cartpole: version 1 is served from now on, no longer as a canary\n"
    # As earlier releases write it, which do not know the field.
    assert selected(models) == {"serve": 1, "labels": {}}
    select(models, (1, 0.25))
    assert say(models, "rollback") == (
        "cartpole: version 1 is served from now on instead of 2; no longer a canary: 1\n"
    )
    assert selected(models) == {"serve": 1, "labels": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["4", "--share", "1.1"], "1.1 is not in the range 0<=x<=1"),
        (["4", "--share", "-0.1"], "-0.1 is not in the range 0<=x<=1"),
        (["4", "--share", "nan"], "nan is not a finite number"),
        (["4", "--share", "0.1", "--label", "a"], "--label and --share cannot be used together"),
        (["--share", "0.1"], "a share needs a version"),
        (["4", "--share", "0"], "version 4 is not a canary; canaries: 1"),
        (["2", "--share", "0.1"], "version 2 is served: it cannot be a canary too"),
        (["3", "--share", "0.1"], "saved_model.pb does not match its checksum on the card"),
        (["9", "--share", "0.1"], "cartpole has no version 9; versions: 6, 5, 4, 3, 2, 1;"),
        (["4", "--share", "0.6"], "more than 1: 0.5 of version 1, 0.6 of version 4"),
        (["6", "--share", "0.1"], "of the served version: version 2 is served"),
    ],
)
def test_what_cannot_be_a_canary_is_not_selected(
    models: Path, trained: Trained, arguments: list[str], message: str
) -> None:
    publish(trained.model_dir, models / "cartpole" / "6", rename_observation)
    select(models, (1, 0.5))
    before = selected(models)
    assert message in mistake(models, "promote", *arguments)
    assert selected(models) == before


def test_a_canary_may_be_of_another_environment_with_the_same_observations(
    models: Path, trained: Trained
) -> None:
    def rename(model_dir: Path) -> None:
        edit_card(model_dir, lambda card: card.update(environment="CartPole-v9"))

    publish(trained.model_dir, models / "cartpole" / "6", rename)
    printed = say(models, "promote", "6", "--share", "0.1")
    assert printed == "cartpole: version 6 answers 0.1 of the episodes from now on\n"


@pytest.mark.parametrize("actions", [Actions(["push_right", "push_left"]), Actions(NAMES, 1)])
def test_a_version_with_other_actions_answers_for_no_other(
    trained: Trained, actions: Actions
) -> None:
    card = read(trained.model_dir).card
    assert card.actions == Actions(NAMES)
    other = msgspec.structs.replace(card, actions=actions)
    for compare in (difference, shadow_difference):
        assert compare(card, card) == ""
        assert compare(other, card) == "its actions are not those of the served version"


@pytest.mark.parametrize(
    ("canaries", "message"),
    [
        ([(4, 0.6), (1, 0.6)], "the shares add up to more than 1: 0.6 of version 4, 0.6 of"),
        ([(4, 0.1), (4, 0.1)], "a version has more than one share: 0.1 of version 4, 0.1 of"),
        ([(4, 0)], "Expected `float` > 0"),
    ],
)
def test_a_selection_file_with_invalid_shares_is_reported(
    tmp_path: Path, canaries: list[tuple[int, float]], message: str
) -> None:
    listed = [{"version": version, "share": share} for version, share in canaries]
    (tmp_path / "serve.json").write_text(json.dumps({"canaries": listed}))
    with pytest.raises(SelectionError, match=message):
        read_selection(tmp_path)


def test_a_selection_that_an_earlier_release_wrote_is_read_and_canaries_survive(
    tmp_path: Path,
) -> None:
    (tmp_path / "serve.json").write_text('{"serve":3,"labels":{"a":1}}\n')
    selection = read_selection(tmp_path)
    assert selection == Selection(3, {"a": 1})
    with_canary = selection.with_share(4, 0.1)
    write_selection(tmp_path, with_canary)
    assert read_selection(tmp_path) == with_canary
