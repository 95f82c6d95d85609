"""What is wrong with a request, in TensorFlow Serving's words.

It reads every element in turn, as `json_tensor.cc` does, to find the same mistake first.
"""

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeGuard

from serving.api.tensors import KINDS, MAX_RANK
from serving.errors import InvalidRequestError

_QUOTED_CHARACTERS = 256


def explain_instances(instances: list[Any], dtypes: Mapping[str, str]) -> None:
    """Find what is wrong with the first invalid instance.

    Raises:
        InvalidRequestError: always if the instances are not tensors.
    """
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise InvalidRequestError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    are_objects = has_names(instances[0])
    (first, *_) = dtypes
    shapes: dict[str, list[int]] = {}
    for item, instance in enumerate(instances):
        if has_names(instance) != are_objects:
            expected, got = ("object", "list") if are_objects else ("value/list", "object")
            raise InvalidRequestError(
                f"Expecting {expected} but got {got} at item {item} of input list"
            )
        named = instance if are_objects else {first: instance}
        for name, value in named.items():
            try:
                _explain_named(name, value, dtypes, shapes)
            except InvalidRequestError as error:
                key = f" key: {name}" if are_objects else ""
                raise InvalidRequestError(
                    f"Failed to process element: {item}{key} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error.detail}"
                ) from error
        if named.keys() != dtypes.keys():
            raise InvalidRequestError(
                f"Failed to process element: {item} of 'instances' list. JSON object: "
                f"{_quoted(instance)} keys must be equal to: {','.join(sorted(dtypes))}"
            )


def _explain_named(
    name: str, value: object, dtypes: Mapping[str, str], shapes: dict[str, list[int]]
) -> None:
    if name not in dtypes:
        raise InvalidRequestError(f"JSON object: does not have named input: {name}")
    shape = explain_tensor(value, dtypes[name])
    expected = shapes.setdefault(name, shape)
    size, expected_size = math.prod(shape), math.prod(expected)
    if size != expected_size:
        raise InvalidRequestError(f"Expecting tensor size: {expected_size} but got: {size}")
    if shape != expected:
        reason = f"Expecting shape {expected} but got: {shape}"
        raise InvalidRequestError(reason.replace(", ", ","))


def explain_tensor(value: object, dtype: str) -> list[int]:
    """The shape of a value, by its first elements.

    Raises:
        InvalidRequestError: another element does not fit that shape.
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        if len(shape) == MAX_RANK:
            raise InvalidRequestError("the lists are nested too deeply")
        shape.append(len(first))
        first = first[0] if first else None
    _explain_level(value, shape, dtype, 0)
    return shape


def _explain_level(value: object, shape: list[int], dtype: str, level: int) -> None:
    if isinstance(value, list):
        if level >= len(shape):
            raise InvalidRequestError(
                f"Encountered list at unexpected level: {level} expected < {len(shape)}"
            )
        if len(value) != shape[level]:
            raise InvalidRequestError(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        for element in value:
            _explain_level(element, shape, dtype, level + 1)
    elif level != len(shape):
        reason = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
        raise wrong_value(value, f"{reason}{len(shape)}")
    elif type(value) not in KINDS[dtype]:
        names = {type(None): "Null", str: "String", dict: "Object", bool: str(value)}
        found = names.get(type(value), "Number")
        raise wrong_value(value, f"Type: {found} is not of expected type: {dtype}")


def has_names(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value has tensors by name; `{"b64": "..."}` is bytes instead."""
    if not isinstance(value, dict):
        return False
    return value.keys() != {"b64"} or not isinstance(value["b64"], str)


def wrong_value(value: object, reason: str) -> InvalidRequestError:
    """The error that quotes a value before what is wrong with it."""
    return InvalidRequestError(f"JSON Value: {_quoted(value)} {reason}")


def _quoted(value: object) -> str:
    """A value as JSON, cut short without ever being written whole."""
    pieces = islice(json.JSONEncoder().iterencode(value), _QUOTED_CHARACTERS)
    return "".join(piece[:_QUOTED_CHARACTERS] for piece in pieces)[:_QUOTED_CHARACTERS]
