"""The demo player and a service whose card names somebody else's environment."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.artefacts import edit_card, publish
from tests.conftest import ENVIRONMENT, ROOT, Service, Trained, run, running_service
from tests.somebodys import card_with, write_packages


@pytest.fixture(scope="module")
def foreign(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Path]]:
    """A service whose card names somebody's environment and wrapper, and where that code is."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "models" / "cartpole").mkdir(parents=True)
    (folder / "code").mkdir()
    write_packages(folder / "code")
    changes = card_with("environment_options", wrappers=["somebodys.envs:Twice"])

    def change(card: dict[str, Any]) -> None:
        card["environment"] = changes["environment"]
        card["environment_options"] = changes["environment_options"]
        card["actions"].update(changes["actions"])

    publish(
        trained.model_dir,
        folder / "models" / "cartpole" / "1",
        lambda model_dir: edit_card(model_dir, change),
    )
    options = ("--workers", "1")
    with running_service(folder / "models", folder / "log", *options) as service:
        yield service, folder / "code"


@pytest.fixture
def url(foreign: tuple[Service, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    service, code = foreign
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{ROOT}:{code}")
    return service.url


def test_play_plays_somebodys_environment_once_its_code_is_allowed(url: str) -> None:
    play = ("serving", "play", "--url", url, "--wait", "60", "--episodes", "2", "--json")
    refused = run(*play)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Error: the policy card names code")
    assert refused.stderr.endswith("--allow-module somebodys.envs\n")
    assert refused.stderr.count("\n") == 1
    allowed = run(*play, "--allow-module", "another", "--allow-module", "somebodys")
    assert allowed.returncode == 0, allowed.stderr
    result = json.loads(allowed.stdout)
    assert result["environment"] == "somebodys.envs:Grid-v0"
    # Three steps, whose reward the wrapper doubles.
    assert [episode["episode_return"] for episode in result["episodes"]] == [6.0, 6.0]


def test_play_shows_and_records_somebodys_environment(url: str, tmp_path: Path) -> None:
    finished = run(
        *("serving", "play", "--url", url, "--wait", "60", "--episodes", "1"),
        *("--allow-module", "somebodys.envs", "--render", "text"),
        *("--record", str(tmp_path / "episode.gif")),
    )
    assert finished.returncode == 0, finished.stderr
    printed, *lines = finished.stderr.splitlines()
    assert printed == "whatever a package prints when it is imported"
    # Two steps per second, of which each is half a second.
    assert [line[:19] for line in lines] == [f"episode 1  step   {step}" for step in range(4)]
    assert re.fullmatch(r"  action (left|right)  return 6  value -?\d+\.\d", lines[3][19:])
    assert (tmp_path / "episode.gif").stat().st_size > 0


def test_play_says_where_a_missing_module_has_to_be(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    finished = run(
        *("serving", "play", "--url", url, "--wait", "60", "--allow-module", "somebodys")
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == (
        "Error: somebodys.envs cannot be imported: somebodys must be installed or on PYTHONPATH\n"
    )
