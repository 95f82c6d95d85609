"""TensorFlow Serving's JSON: requests to tensors, results to rows.

Well-formed requests take a way without any Python loop over their elements. All others are
read a second time, element by element as TensorFlow Serving does, to tell what it would tell.
"""

import json
import math
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from serving.api.encoding import encode
from serving.errors import InvalidRequestError, NotJsonError
from serving.tensors import BOOLEAN, MAX_RANK, NUMBER, Array, IrregularError, flatten, require_kinds

_KINDS: dict[str, tuple[frozenset[type], type]] = {
    "float": (NUMBER, np.float64),
    "bool": (BOOLEAN, np.bool_),
}
_QUOTED_CHARACTERS = 256


def parse(body: bytes) -> dict[str, Any]:
    """Parse the object that a body begins with; what follows it is ignored.

    Raises:
        NotJsonError: it does not begin with JSON.
        InvalidRequestError: that is no object.
    """
    if not body:
        raise NotJsonError("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_leniently(body)
    if not isinstance(document, dict):
        raise InvalidRequestError(_quoting(document, "Is not object"))
    return document


def _parse_leniently(body: bytes) -> object:
    """As TensorFlow Serving: with NaN and Infinity, and with anything after the first value."""
    decoder = json.JSONDecoder(parse_int=float)
    try:
        text = body.decode("utf-8-sig").lstrip(" \t\r\n")
        document, _ = decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"JSON Parse error: Invalid value. at offset: {error.pos}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(f"JSON Parse error: {error}") from error
    return document


def signature_name(document: dict[str, Any]) -> str:
    """The signature that is asked for, empty for the default one.

    Raises:
        InvalidRequestError: it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        reason = "not formatted correctly. 'signature_name' key must be a string value."
        raise InvalidRequestError(_quoting(document, reason))
    return name


def require_examples(document: dict[str, Any]) -> None:
    """Hold a request to classify or regress to its form.

    Raises:
        InvalidRequestError: it has no list of examples.
    """
    examples = document.get("examples")
    if "examples" not in document:
        reason = "When method is classify, key 'examples' is expected and was not found"
    elif not isinstance(examples, list):
        reason = "Expecting 'examples' value to be an list/array"
    elif not examples:
        reason = "'examples' value is an empty array"
    else:
        return
    raise InvalidRequestError(_quoting(document, reason))


def tensors(
    document: dict[str, Any], dtypes: Mapping[str, str], max_rows: int
) -> tuple[dict[str, Array], bool]:
    """The inputs of a signature from `instances` (rows) or `inputs` (columns).

    Args:
        document: the request.
        dtypes: "float" or "bool" by the name of the input.
        max_rows: the most instances allowed.

    Returns:
        Float64 or boolean arrays by name, and whether they came as rows.

    Raises:
        InvalidRequestError: in TensorFlow Serving's words.
    """
    if "instances" in document and "inputs" in document:
        reason = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
        raise InvalidRequestError(_quoting(document, reason + "to exist"))
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            reason = "Expecting 'instances' to be an list/array"
            raise InvalidRequestError(_quoting(document, reason))
        if not instances:
            raise InvalidRequestError(_quoting(document, "No values in 'instances' array"))
        if len(instances) > max_rows:
            raise InvalidRequestError(f"{len(instances)} instances, expected at most {max_rows}")
        try:
            return _from_instances(instances, dtypes), True
        except IrregularError:
            _explain_instances(instances, dtypes)
            raise
    if "inputs" in document:
        inputs = _named_inputs(document["inputs"], dtypes)
        try:
            return {name: _array(inputs[name], dtype) for name, dtype in dtypes.items()}, False
        except IrregularError:
            for name, dtype in dtypes.items():
                _explain_tensor(inputs[name], dtype)
            raise
    raise InvalidRequestError("Missing 'inputs' or 'instances' key")


def _from_instances(instances: list[Any], dtypes: Mapping[str, str]) -> dict[str, Array]:
    types = set(map(type, instances))
    if types == {dict}:
        if set(map(len, instances)) != {len(dtypes)}:
            raise IrregularError("the keys of the instances differ")
        try:
            columns = {name: list(map(itemgetter(name), instances)) for name in dtypes}
        except KeyError as error:
            raise IrregularError(f"an instance has no key {error}") from error
    elif len(dtypes) == 1:
        columns = dict.fromkeys(dtypes, instances)
    else:
        raise IrregularError("the instances are a plain list")
    return {name: _array(column, dtypes[name]) for name, column in columns.items()}


def _array(value: object, dtype: str) -> Array:
    kinds, numpy_dtype = _KINDS[dtype]
    elements, shape = flatten(value)
    require_kinds(elements, kinds)
    return np.array(elements, numpy_dtype).reshape(shape)


def _named_inputs(inputs: object, dtypes: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(inputs, dict) or _is_base64(inputs):
        if len(dtypes) > 1:
            raise InvalidRequestError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        return dict.fromkeys(dtypes, inputs)
    for name in dtypes:
        if name not in inputs:
            raise InvalidRequestError(f"Missing named input: {name} in 'inputs' object.")
    return inputs


def _explain_instances(instances: list[Any], dtypes: Mapping[str, str]) -> None:
    """Find what is wrong with the first instance that is.

    Raises:
        InvalidRequestError: always where `_from_instances` does.
    """
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise InvalidRequestError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    are_objects = _is_instance(instances[0])
    (first, *_) = dtypes
    shapes: dict[str, list[int]] = {}
    for item, instance in enumerate(instances):
        if are_objects and not _is_instance(instance):
            raise InvalidRequestError(f"Expecting object but got list at item {item} of input list")
        if not are_objects and _is_instance(instance):
            raise InvalidRequestError(
                f"Expecting value/list but got object at item {item} of input list"
            )
        for name, value in instance.items() if are_objects else [(first, instance)]:
            try:
                _explain_named(name, value, dtypes, shapes)
            except InvalidRequestError as error:
                key = f" key: {name}" if are_objects else ""
                raise InvalidRequestError(
                    f"Failed to process element: {item}{key} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error.detail}"
                ) from error
        if are_objects and instance.keys() != dtypes.keys():
            raise InvalidRequestError(
                f"Failed to process element: {item} of 'instances' list. JSON object: "
                f"{_quoted(instance)} keys must be equal to: {','.join(sorted(dtypes))}"
            )


def _explain_named(
    name: str, value: object, dtypes: Mapping[str, str], shapes: dict[str, list[int]]
) -> None:
    if name not in dtypes:
        raise InvalidRequestError(f"JSON object: does not have named input: {name}")
    shape = _explain_tensor(value, dtypes[name])
    expected = shapes.setdefault(name, shape)
    if math.prod(shape) != math.prod(expected):
        raise InvalidRequestError(
            f"Expecting tensor size: {math.prod(expected)} but got: {math.prod(shape)}"
        )
    if shape != expected:
        texts = ["[" + ",".join(map(str, sizes)) + "]" for sizes in (expected, shape)]
        raise InvalidRequestError(f"Expecting shape {texts[0]} but got: {texts[1]}")


def _explain_tensor(value: object, dtype: str) -> list[int]:
    """The shape of a value, by its first elements.

    Raises:
        InvalidRequestError: another element does not fit to it.
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        if len(shape) == MAX_RANK:
            raise InvalidRequestError("the lists are nested too deeply")
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    _explain_level(value, shape, dtype, 0)
    return shape


def _explain_level(value: object, shape: list[int], dtype: str, level: int) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            reason = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
            raise InvalidRequestError(_quoting(value, f"{reason}{len(shape)}"))
        if type(value) not in _KINDS[dtype][0]:
            reason = f"Type: {_type(value)} is not of expected type: {dtype}"
            raise InvalidRequestError(_quoting(value, reason))
        return
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


def _is_instance(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def _type(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    names = {type(None): "Null", str: "String", dict: "Object"}
    return names.get(type(value), "Number")


def _quoting(value: object, reason: str) -> str:
    return f"JSON Value: {_quoted(value)} {reason}"


def _quoted(value: object) -> str:
    """A value as JSON, cut short without ever being written whole."""
    text = ""
    for piece in json.JSONEncoder().iterencode(value):
        text += piece[:_QUOTED_CHARACTERS]
        if len(text) >= _QUOTED_CHARACTERS:
            break
    return text[:_QUOTED_CHARACTERS]


def rows(outputs: Mapping[str, Array]) -> bytes:
    """`{"predictions": [...]}` with an object a row, of outputs `[B]` or `[B, N]`.

    Whole columns are written, cut and woven together: float32 keeps its shortest form, and
    there is no Python loop over rows.
    """
    (batch,) = {len(output) for output in outputs.values()}
    pieces: list[Any] = [b""] * (batch * (2 * len(outputs) + 1))
    step = 2 * len(outputs) + 1
    opening = b"{"
    for place, (name, output) in enumerate(outputs.items()):
        text = encode(output)
        key = orjson.dumps(name) + b":"
        # A row of a matrix keeps its brackets between the cuts.
        cells = text[1:-1].split(b",") if output.ndim == 1 else text[2:-2].split(b"],[")
        before, after = (b"", b"") if output.ndim == 1 else (b"[", b"]")
        pieces[2 * place :: step] = [opening + key + before] * batch
        pieces[2 * place + 1 :: step] = cells
        opening = after + b","
    pieces[step - 1 :: step] = [opening[:-1] + b"},"] * batch
    pieces[-1] = pieces[-1][:-1]
    return b'{"predictions":[%b]}' % b"".join(pieces)
