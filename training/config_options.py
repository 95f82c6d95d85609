"""Options of the command line made from `TrainingConfig`, and its values in a TOML file."""

import dataclasses
import json
import tomllib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click
import msgspec
from click.core import ParameterSource

from training.config import ConfigError, TrainingConfig, config_from
from training.presets import FOR_OTHER_ENVIRONMENTS, PRESETS, Preset

Command = TypeVar("Command", bound=Callable[..., Any])

NONE = "none"  # how null is written on the command line and in TOML, which has none
FIELDS = [field.name for field in dataclasses.fields(TrainingConfig)]
# Fields that define the environment, rather than how a policy is learned in it.
OF_THE_ENVIRONMENT = {
    *("env_kwargs", "max_episode_steps", "wrappers"),
    *("observation_names", "action_names", "reward_threshold"),
}


class HyperparameterCommand(click.Command):
    """A command whose help lists the options of the config in a section of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Hyperparameters": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_of_config = parameter.name in FIELDS
                sections["Hyperparameters" if is_of_config else "Options"].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def config_options(command: Command) -> Command:
    """Add `--config` and an option for every field of `TrainingConfig`."""
    hints = get_type_hints(TrainingConfig, include_extras=True)
    for name in reversed(FIELDS):
        command = _option(name, hints[name])(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="TOML file of hyperparameters by their names, such as num_envs = 64.",
    )(command)


def chosen_config(
    context: click.Context, preset: Preset, config_file: Path | None
) -> TrainingConfig:
    """The preset's config, overridden by the file and then by the command line.

    Raises:
        ConfigError: the file cannot be read, or a value is invalid.
    """
    return change(PRESETS[preset], chosen_values(context, config_file))


def change(config: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
    """Change values of a config; another environment also resets what was set for the old one.

    Raises:
        ConfigError: a value is invalid.
    """
    start = to_values(config)
    changed = config_from({**start, **values})
    if changed.environment == config.environment:
        return changed
    if changed.env_id != config.env_id:
        start = {name: value for name, value in start.items() if name not in OF_THE_ENVIRONMENT}
    return config_from({**start, **FOR_OTHER_ENVIRONMENTS, **values})


def to_values(config: TrainingConfig) -> dict[str, Any]:
    """The fields of a config as JSON values."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def chosen_values(context: click.Context, config_file: Path | None) -> dict[str, Any]:
    """The fields of the config that are set in the file or on the command line.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    values: dict[str, Any] = {}
    if config_file is not None:
        try:
            values |= tomllib.loads(config_file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{config_file} cannot be read: {error}") from error
    for name in FIELDS:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            values[name] = context.params[name]
    return {name: None if value == NONE else value for name, value in values.items()}


def to_toml(values: Mapping[str, Any]) -> str:
    """Write fields of the config, given as JSON values, as text for a `--config` file.

    Raises:
        ConfigError: an argument of the environment is null, which TOML does not have.
    """
    return "".join(
        f"{name} = {_toml(NONE if value is None else value)}\n" for name, value in values.items()
    )


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        items = (f"{_toml(key)} = {_toml(part)}" for key, part in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        raise ConfigError("env_kwargs contain a null, which TOML cannot express")
    # DEL is the one character that JSON leaves unescaped in a string and TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def option_name(field: str) -> str:
    """The option of a field."""
    return "--wrapper" if field == "wrappers" else f"--{field.replace('_', '-')}"


def _option(name: str, hint: Any) -> Callable[[Command], Command]:
    hint, notes = get_args(hint)[0], hint.__metadata__
    alternatives = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = _plain(next(one for one in alternatives if one is not types.NoneType))
    optional = types.NoneType in alternatives
    option = option_name(name)
    settings = {"help": next(note.description for note in notes if note.description)}
    if kind is bool:
        option += f"/--no-{option.removeprefix('--')}"
    elif name == "wrappers":
        settings |= {"multiple": True, "metavar": "MODULE:CALLABLE"}
    elif name == "return_bounds":
        settings |= {"nargs": 2, "type": float, "metavar": "LOW HIGH"}
    else:
        settings |= {"type": _Value(kind, optional), "metavar": _metavar(kind)}
        if optional:
            settings["metavar"] += f"|{NONE}"
    return click.option(option, name, show_default=False, **settings)


class _Value(click.ParamType[Any]):
    """Parses the text of a field; `config_from` checks the value together with all others."""

    name = "value"

    def __init__(self, kind: Any, optional: bool) -> None:
        self._kind, self._optional = kind, optional

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Turn text into a JSON value."""
        if value == NONE and self._optional:
            return value
        try:
            if get_origin(self._kind) is tuple:
                return [_plain(get_args(self._kind)[0])(part) for part in value.split(",")]
            if get_origin(self._kind) is dict:
                return json.loads(value)
            return value if get_origin(self._kind) is Literal else self._kind(value)
        except (RecursionError, ValueError):
            self.fail(f"{value!r} is not {_metavar(self._kind)}", param, ctx)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "NAME,..." if _plain(get_args(kind)[0]) is str else "INTEGER,..."
    if get_origin(kind) is dict:
        return "JSON"
    return {int: "INTEGER", float: "NUMBER", str: "TEXT"}[kind]


def _plain(hint: Any) -> Any:
    """A type without its annotation."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
