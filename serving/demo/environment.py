"""Makes the environment of a policy card as in training; may refuse code that the card names."""

import contextlib
import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Self

import gymnasium as gym
import msgspec
import numpy as np
import numpy.typing as npt

# Arguments of gymnasium.make itself, which a card must not set among the environment's own.
RESERVED = {"id", "max_episode_steps", "disable_env_checker", "render_mode"}
MAX_MESSAGE = 500  # characters; a card or an environment may contain any text


class UnplayableError(Exception):
    """The environment of a policy card cannot be made, or has failed; one line says why."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message)[:MAX_MESSAGE])


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """The card's section on how the environment is made."""

    kwargs: dict[str, Any] = {}
    max_episode_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    wrappers: list[str] = []


class Observations(msgspec.Struct):
    """The card's section on observations."""

    names: list[str]


class Actions(msgspec.Struct):
    """The card's section on actions."""

    names: list[str]
    start: int = 0


class Card(msgspec.Struct):
    """The fields of the policy card that the player needs."""

    environment: str
    observations: Observations
    actions: Actions
    environment_options: Options = msgspec.field(default_factory=Options)


@dataclass(frozen=True)
class Environment:
    """An environment as its policy sees it; whatever its code raises becomes UnplayableError."""

    env: gym.Env[Any, Any]
    id: str
    action_names: list[str]
    start: int  # the environment's number for the service's action 0
    metadata: object  # of the environment, which may be anything
    is_cartpole: bool  # Gymnasium's own, unwrapped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self.env)

    def reset(self, seed: int | None) -> npt.NDArray[np.float32]:
        """Start an episode, and return its first observation `[O]`."""
        with _as_unplayable(f"{self.id} has failed"):
            observation, _ = self.env.reset(seed=seed)
            return np.asarray(observation, np.float32)

    def step(self, action: int) -> tuple[npt.NDArray[np.float32], float, bool]:
        """Take an action, counted from 0; return observation `[O]`, reward and whether it ended."""
        with _as_unplayable(f"{self.id} has failed"):
            observation, reward, terminated, truncated, _ = self.env.step(action + self.start)
            ended = bool(terminated or truncated)
            return np.asarray(observation, np.float32), float(reward), ended

    def render(self) -> npt.NDArray[np.uint8]:
        """Draw the current state: RGB `[height, width, 3]`."""
        with warnings.catch_warnings(), _as_unplayable(f"{self.id} cannot be rendered"):
            # Hide Gymnasium's warning: what is not a picture is an error below.
            warnings.filterwarnings("ignore", message=".*RGB-array rendering")
            frame: Any = self.env.render()
        if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.size):
            raise UnplayableError(f"{self.id} cannot be rendered: it returns no picture")
        if not (frame.ndim == 3 and frame.shape[2] == 3):
            raise UnplayableError(
                f"{self.id} cannot be rendered: {frame.shape} is not an RGB picture"
            )
        return frame


def make(policy_card: object, allowed: Iterable[str], *, rendered: bool) -> Environment:
    """Make the environment of a policy card, in the way that docs/artefact.md describes.

    Args:
        policy_card: JSON of any content.
        allowed: modules whose code may run; their submodules are allowed too. A card comes from
            whoever exported the policy, and code that it names would run here.
        rendered: make it so that `render` works.

    Raises:
        UnplayableError: the card or the environment is invalid, or a module on the card is not
            allowed.
    """
    try:
        card = msgspec.convert(policy_card, Card)
    except msgspec.ValidationError as error:
        raise UnplayableError(f"the policy card cannot be used: {error}") from error
    options = card.environment_options
    reserved = sorted(RESERVED & options.kwargs.keys())
    if reserved:
        raise UnplayableError(f"the policy card sets {', '.join(reserved)} among the kwargs")
    *module, name = card.environment.split(":")
    if len(module) > 1:  # Gymnasium would import all that precedes a second colon
        raise UnplayableError(f"{card.environment!r} on the policy card is not an environment")
    wrappers = [_wrapper(path) for path in options.wrappers]
    _require_allowed([*module, *(module for module, _ in wrappers)], list(allowed))

    if module:
        _import(module[0])
    kwargs = options.kwargs | ({"render_mode": "rgb_array"} if rendered else {})
    with warnings.catch_warnings(), _as_unplayable(f"{card.environment} cannot be made"):
        # That it cannot be rendered is an error below, where it matters.
        warnings.filterwarnings("ignore", message=".*render_modes")
        try:
            env: gym.Env[Any, Any] = gym.make(
                name, max_episode_steps=options.max_episode_steps, **kwargs
            )
        except TypeError as error:
            if rendered and "unexpected keyword argument 'render_mode'" in str(error):
                raise _unrenderable(card.environment) from error
            raise
    try:
        for module_name, attribute in wrappers:
            env = _wrap(env, module_name, attribute)
        return _fitting(env, card, rendered)
    except UnplayableError:
        _close(env)
        raise


def printable(text: str) -> str:
    """A text as one line, without characters that could control a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _wrapper(path: str) -> tuple[str, str]:
    module, _, attribute = path.partition(":")
    if not attribute.isidentifier():
        raise UnplayableError(f"the wrapper {path!r} on the policy card is not module:callable")
    return module, attribute


def _require_allowed(modules: list[str], allowed: list[str]) -> None:
    """Raise `UnplayableError` if one of the modules is not allowed."""
    for module in modules:
        # Users copy the error into a shell, so it may contain nothing but names.
        if not all(part.isidentifier() for part in module.split(".")):
            raise UnplayableError(f"{module!r} on the policy card is not the name of a module")
    refused = [
        module
        for module in dict.fromkeys(modules)
        if not any(module == name or module.startswith(f"{name}.") for name in allowed)
    ]
    if refused:
        options = " ".join(f"--allow-module {module}" for module in refused)
        raise UnplayableError(
            f"the policy card names code that is not run unless you trust it: {options}"
        )


def _import(module: str) -> Any:
    with _as_unplayable(f"{module} cannot be imported"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            raise UnplayableError(
                f"{module} cannot be imported: {missing} must be installed or on PYTHONPATH"
            ) from error


def _wrap(env: gym.Env[Any, Any], module: str, attribute: str) -> gym.Env[Any, Any]:
    path = f"{module}:{attribute}"
    wrapper = getattr(_import(module), attribute, None)
    if not callable(wrapper):
        raise UnplayableError(f"the wrapper {path} on the policy card cannot be called")
    with _as_unplayable(f"the wrapper {path} has failed"):
        wrapped = wrapper(env)
    if not isinstance(wrapped, gym.Env):
        raise UnplayableError(f"the wrapper {path} returns no Gymnasium environment")
    return wrapped


def _fitting(env: gym.Env[Any, Any], card: Card, rendered: bool) -> Environment:
    """Flatten the observations, and check that the environment is the one that the card means."""
    with _as_unplayable(f"{card.environment} cannot be used"):
        if not _is_flat(env.observation_space):
            env = gym.wrappers.FlattenObservation(env)
        observations, actions, metadata = env.observation_space, env.action_space, env.metadata
    expected, names, start = len(card.observations.names), card.actions.names, card.actions.start
    if not _is_flat(observations):
        wrong = f"its observations {observations} are not of a fixed size"
    elif (observed := gym.spaces.flatdim(observations)) != expected:
        wrong = f"it observes {observed} numbers, but the policy card has {expected}"
    elif not isinstance(actions, gym.spaces.Discrete):
        wrong = f"its actions are {actions}, not Discrete"
    elif (actions.n, actions.start) != (len(names), start):
        here, there = _span(actions.n, actions.start), _span(len(names), start)
        wrong = f"it has {here}, the policy card {there}"
    elif rendered and not _renders(metadata):
        raise _unrenderable(card.environment)
    else:
        wraps = bool(card.environment_options.wrappers)
        is_cartpole = re.fullmatch(r"CartPole-v\d+", card.environment) is not None and not wraps
        shown = [printable(name) for name in names]
        return Environment(env, card.environment, shown, start, metadata, is_cartpole)
    raise UnplayableError(f"{card.environment} is not what the policy was trained on: {wrong}")


def _is_flat(space: Any) -> bool:
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1


def _span(count: int, start: int) -> str:
    return f"{count} actions from {start}"


def _renders(metadata: object) -> bool:
    modes = metadata.get("render_modes") if isinstance(metadata, dict) else None
    return isinstance(modes, list | tuple | set | frozenset) and "rgb_array" in modes


def _unrenderable(environment: str) -> UnplayableError:
    return UnplayableError(f"{environment} has no rgb_array rendering, so it cannot be recorded")


def _close(env: gym.Env[Any, Any]) -> None:
    # Its errors are ignored: everything was played, or something else failed before.
    with contextlib.suppress(UnplayableError), _as_unplayable("it cannot be closed"):
        env.close()


@contextlib.contextmanager
def _as_unplayable(what: str) -> Iterator[None]:
    """Run third-party code, which can raise anything and must not write to standard output."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UnplayableError:
        raise
    # An imported module may exit.
    except (Exception, SystemExit) as error:
        raise UnplayableError(f"{what}: {type(error).__name__}: {error}") from error
