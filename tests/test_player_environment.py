"""The environment of a policy card, as the demo player makes it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from serving.demo.environment import Environment, UnplayableError, make, printable
from tests.somebodys import CARD, CARTPOLE, PACKAGES, card_with, write_packages


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packages that can be imported, of which nothing stays imported or registered."""
    write_packages(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registered, loaded = dict(gym.registry), set(sys.modules)
    yield
    gym.registry.clear()
    gym.registry.update(registered)
    for name in set(sys.modules) - loaded:
        if name.startswith("somebodys"):
            del sys.modules[name]


def made(card: dict[str, Any], *, rendered: bool = False) -> Environment:
    return make(card, ["somebodys"], rendered=rendered)


def episode(environment: Environment) -> list[float]:
    """The rewards of an episode in which the service always answers 0, the first action."""
    environment.reset(seed=0)
    rewards, ended = [], False
    while not ended:
        _, reward, ended = environment.step(0)
        rewards.append(reward)
    return rewards


@pytest.mark.usefixtures("packages")
def test_a_card_sets_arguments_time_limit_and_wrappers_in_their_order() -> None:
    wrappers = ["somebodys.envs:Twice", "somebodys.envs:Plus"]
    for order, reward in ((wrappers, 2 * 5.0 + 1), (wrappers[::-1], 2 * (5.0 + 1))):
        options = {"kwargs": {"reward": 5.0}, "wrappers": order, "max_episode_steps": 4}
        with made(card_with(environment_options=options)) as environment:
            assert episode(environment) == [reward] * 4


@pytest.mark.usefixtures("packages")
def test_nested_observations_are_flat_as_gymnasium_flattens_them() -> None:
    with made(CARD) as environment:
        observation = environment.reset(seed=0)
    assert observation.dtype == "float32"
    assert observation.tolist() == [0.0, 1.0, 0.25, -0.5]  # one-hot, then the two of the box


def test_a_card_without_options_is_made_as_gymnasium_registers_it() -> None:
    with make(CARTPOLE, [], rendered=False) as environment:
        assert environment.is_cartpole
        assert environment.reset(seed=0).shape == (4,)
        assert type(environment.env).__name__ == "TimeLimit"  # flat already
    with make(CARTPOLE | {"environment_options": {}}, [], rendered=False) as environment:
        assert environment.is_cartpole


@pytest.mark.usefixtures("packages")
def test_only_cartpole_itself_is_drawn_as_a_cart() -> None:
    wrapped = CARTPOLE | {"environment_options": {"wrappers": ["somebodys.envs:Twice"]}}
    for card in (wrapped, CARD):
        with made(card) as environment:
            assert not environment.is_cartpole


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no object": (
        [],  # type: ignore[dict-item]  # a card can be anything
        "the policy card cannot be used: Expected `object`, got `array`",
    ),
    "no environment": ({}, "missing required field `environment`"),
    "no text": (card_with(environment=3), "Expected `str`, got `int` - at `$.environment`"),
    "no names": (card_with(actions={}), "missing required field `names`"),
    "options that are a list": (card_with(environment_options=[]), "Expected `object`"),
    "an unknown option": (card_with("environment_options", speed=2), "unknown field `speed`"),
    "kwargs that are text": (card_with("environment_options", kwargs="a"), "Expected `object`"),
    "half a step": (card_with("environment_options", max_episode_steps=1.5), "`int"),
    "no step": (card_with("environment_options", max_episode_steps=0), ">= 1"),
    "a flag for a number": (card_with("environment_options", max_episode_steps=True), "got `bool`"),
    "a huge number": (card_with("actions", start=10**30), "somebodys.envs:Grid-v0 is not what"),
    "wrappers that are text": (card_with("environment_options", wrappers="a:b"), "`array`"),
    "a wrapper that is not text": (card_with("environment_options", wrappers=[1]), "`str`"),
    **{
        f"{name} as an argument": (
            card_with("environment_options", kwargs={name: None}),
            f"sets {name} among the kwargs",
        )
        for name in ("render_mode", "max_episode_steps", "id", "disable_env_checker")
    },
    "an unknown environment": (CARTPOLE | {"environment": "NoSuchThing-v0"}, "cannot be made"),
    "an empty name": (CARTPOLE | {"environment": ""}, "cannot be made: Error: Malformed"),
    "an argument too many": (card_with("environment_options", kwargs={"x": 1}), "TypeError: "),
    "an error in the environment": (
        card_with("environment_options", kwargs={"fails_in": "__init__"}),
        r"Grid-v0 cannot be made: KeyError: 'something\nin two lines'",
    ),
    "a second colon": (card_with(environment="somebodys:somebodys.ends:Grid-v0"), "environment"),
    "no module before the colon": (card_with(environment=":Grid-v0"), "'' on the policy card"),
    "a module for a shell": (card_with(environment="a;reboot:B-v0"), "is not the name of a module"),
    "a module that is not there": (
        card_with(environment="somebodys.missing:Grid-v0"),
        "somebodys.missing must be installed or on PYTHONPATH",
    ),
    "a module without what it needs": (
        card_with(environment="somebodys.incomplete:Grid-v0"),
        "somebodys.incomplete cannot be imported: a_package_that_is_not_here must be installed or",
    ),
    "a module with an error": (
        card_with(environment="somebodys.broken:Grid-v0"),
        "somebodys.broken cannot be imported: ZeroDivisionError: division by zero",
    ),
    "a module that is a program": (
        card_with(environment="somebodys.ends:Grid-v0"),
        "somebodys.ends cannot be imported: SystemExit: 0",
    ),
    **{
        f"the wrapper {path!r}": (card_with("environment_options", wrappers=[path]), message)
        for path, message in (
            ("somebodys.envs", "'somebodys.envs' on the policy card is not module:callable"),
            ("somebodys.envs:", "is not module:callable"),
            ("somebodys.envs:a.b", "is not module:callable"),
            (":Twice", "is not the name of a module"),
            ("somebodys.envs:number", "somebodys.envs:number on the policy card cannot be called"),
            ("somebodys.envs:missing", "somebodys.envs:missing on the policy card cannot be"),
            ("somebodys.envs:broken", "RuntimeError: no wrapper today"),
            ("somebodys.envs:nothing", "returns no Gymnasium environment"),
        )
    },
    "other observations": (
        card_with(observations={"names": ["a"]}),
        "is not what the policy was trained on: it observes 4 numbers, but the policy card has 1",
    ),
    "another number of actions": (
        card_with(actions={"names": ["a"], "start": 1}),
        "it has 2 actions from 1, the policy card 1 actions from 1",
    ),
    "actions from elsewhere": (
        card_with(actions={"names": ["a", "b"]}),
        "it has 2 actions from 1, the policy card 2 actions from 0",
    ),
    "observations of any length": (
        card_with(environment="somebodys.envs:Endless-v0"),
        "are not of a fixed size",
    ),
    "continuous actions": (card_with(environment="somebodys.envs:Continuous-v0"), "not Discrete"),
}


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_card_that_cannot_be_played_is_one_line(name: str) -> None:
    card, message = UNUSABLE[name]
    with pytest.raises(UnplayableError) as refusal:
        made(card)
    assert message in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) <= 500


@pytest.mark.parametrize("allowed", [[], [""], ["some"], ["Somebodys"], ["somebodys.envs.more"]])
@pytest.mark.parametrize(
    ("card", "options"),
    [
        (CARD, "somebodys.envs"),
        (card_with(environment="somebodys:Grid-v0"), "somebodys"),
        (
            CARTPOLE | {"environment_options": {"wrappers": ["somebodys:a", "somebodys.b:c"]}},
            "somebodys --allow-module somebodys.b",
        ),
        # It is imported already, and is somebody's wish all the same.
        (CARTPOLE | {"environment_options": {"wrappers": ["os:system"]}}, "os"),
    ],
)
def test_code_that_is_not_allowed_is_never_imported(
    card: dict[str, Any],
    options: str,
    allowed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    effect = tmp_path / "effect"
    write_packages(tmp_path)
    for name in PACKAGES:
        (tmp_path / name).write_text(f"open({str(effect)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnplayableError) as refusal:
        make(card, allowed, rendered=False)
    assert str(refusal.value).endswith(f"unless you trust it: --allow-module {options}")
    assert not effect.exists()
    assert not [name for name in sys.modules if name.startswith("somebodys")]


@pytest.mark.usefixtures("packages")
def test_all_modules_are_allowed_before_the_first_is_imported() -> None:
    card = card_with("environment_options", wrappers=["others:wrapper"])
    with pytest.raises(UnplayableError, match=r"--allow-module others$"):
        made(card)
    assert "somebodys" not in sys.modules


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_environment_that_fails_while_it_is_played_is_one_line(where: str) -> None:
    card = card_with("environment_options", kwargs={"fails_in": where})
    with (
        pytest.raises(UnplayableError, match="Grid-v0 has failed: KeyError: 'something"),
        made(card) as environment,
    ):
        episode(environment)


@pytest.mark.usefixtures("packages")
def test_an_environment_that_cannot_be_closed_was_played_all_the_same() -> None:
    with made(card_with("environment_options", kwargs={"fails_in": "close"})) as environment:
        assert episode(environment) == [1.0] * 3


@pytest.mark.usefixtures("packages")
def test_an_environment_that_ends_the_program_when_it_is_closed_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("somebodys.envs.Grid.close", lambda _: sys.exit(0))
    with pytest.raises(UnplayableError, match="it has 2 actions from 1, the policy card"):
        made(card_with("actions", start=0))


@pytest.mark.usefixtures("packages")
def test_what_third_party_code_prints_is_not_among_the_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made(CARD)
    assert capsys.readouterr() == ("", "whatever a package prints when it is imported\n")


@pytest.mark.usefixtures("packages")
def test_an_environment_that_cannot_be_rendered_says_so_where_that_is_wanted() -> None:
    plain = card_with(environment="somebodys.envs:Plain-v0")
    assert episode(made(plain)) == [1.0] * 3
    with pytest.raises(UnplayableError, match="Plain-v0 has no rgb_array rendering"):
        made(plain, rendered=True)
    # It announces pictures, and has none.
    blank = made(card_with("environment_options", kwargs={"picture": False}), rendered=True)
    blank.reset(seed=0)
    with pytest.raises(UnplayableError, match="Grid-v0 cannot be rendered: it returns no picture"):
        blank.render()
    drawn = made(CARD, rendered=True)
    drawn.reset(seed=0)
    assert drawn.render().shape == (20, 30, 3)


def test_a_text_of_a_card_cannot_steer_a_terminal() -> None:
    assert printable("go\x1b[2J\nleft\r\x07  \u202e now") == "go [2J left now"
