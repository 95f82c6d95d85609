"""TensorFlow Serving's JSON: requests to tensors, results to rows.

Well-formed requests take a way without any Python loop over their elements. All others are
read a second time by `serving.api.tfserving.explain`.
"""

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from serving.api.messages import encode
from serving.api.tensors import Array, IrregularError, flatten, require_kinds
from serving.api.tfserving.explain import (
    KINDS,
    explain_instances,
    explain_tensor,
    is_base64,
    quoting,
)
from serving.errors import InvalidRequestError, NotJsonError

_DTYPES: dict[str, type] = {"float": np.float64, "bool": np.bool_}


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
        raise InvalidRequestError(quoting(document, "Is not object"))
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
        raise InvalidRequestError(quoting(document, reason))
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
    raise InvalidRequestError(quoting(document, reason))


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
        raise InvalidRequestError(quoting(document, reason + "to exist"))
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            reason = "Expecting 'instances' to be an list/array"
            raise InvalidRequestError(quoting(document, reason))
        if not instances:
            raise InvalidRequestError(quoting(document, "No values in 'instances' array"))
        if len(instances) > max_rows:
            raise InvalidRequestError(f"{len(instances)} instances, expected at most {max_rows}")
        try:
            return _from_instances(instances, dtypes), True
        except IrregularError:
            explain_instances(instances, dtypes)
            raise
    if "inputs" in document:
        inputs = _named_inputs(document["inputs"], dtypes)
        try:
            return {name: _array(inputs[name], dtype) for name, dtype in dtypes.items()}, False
        except IrregularError:
            for name, dtype in dtypes.items():
                explain_tensor(inputs[name], dtype)
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
    elements, shape = flatten(value)
    require_kinds(elements, KINDS[dtype])
    return np.array(elements, _DTYPES[dtype]).reshape(shape)


def _named_inputs(inputs: object, dtypes: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(inputs, dict) or is_base64(inputs):
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
