"""TensorFlow Serving's JSON to tensors.

Well-formed requests are converted without any Python loop over their elements. All others are
read a second time by `serving.api.tfserving.explain`.
"""

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from serving.api.tensors import Array, IrregularError, flatten
from serving.api.tfserving.explain import explain_instances, explain_tensor, has_names, wrong_value
from serving.errors import InvalidRequestError, NotJsonError


def parse(body: bytes) -> tuple[dict[str, Any], str]:
    """The object that a body begins with, and the signature that it names; the rest is ignored.

    Raises:
        NotJsonError: it does not begin with JSON.
        InvalidRequestError: that is not an object, or the name of the signature is not a string.
    """
    if not body:
        raise NotJsonError("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_leniently(body)
    if not isinstance(document, dict):
        raise wrong_value(document, "Is not object")
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        reason = "not formatted correctly. 'signature_name' key must be a string value."
        raise wrong_value(document, reason)
    return document, signature or "serving_default"


def _parse_leniently(body: bytes) -> object:
    """Parse like TensorFlow Serving: accept NaN and Infinity, ignore what follows the value."""
    try:
        text = body.decode("utf-8-sig").lstrip(" \t\r\n")
        return json.JSONDecoder(parse_int=float).raw_decode(text)[0]
    except json.JSONDecodeError as error:
        raise NotJsonError(f"JSON Parse error: Invalid value. at offset: {error.pos}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(f"JSON Parse error: {error}") from error


def tensors(
    document: dict[str, Any], dtypes: Mapping[str, str], max_rows: int
) -> tuple[dict[str, Array], bool]:
    """The inputs of a signature from `instances` (rows) or `inputs` (columns).

    `dtypes` has "float" or "bool" for the name of each input.

    Returns:
        Float64 or boolean arrays by name, and whether they came as rows.

    Raises:
        InvalidRequestError: in TensorFlow Serving's words.
    """
    if "instances" in document and "inputs" in document:
        reason = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
        raise wrong_value(document, reason + "to exist")
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise wrong_value(document, "Expecting 'instances' to be an list/array")
        if not instances:
            raise wrong_value(document, "No values in 'instances' array")
        if len(instances) > max_rows:
            raise InvalidRequestError(f"{len(instances)} instances, expected at most {max_rows}")
        try:
            return _arrays(_columns(instances, dtypes), dtypes), True
        except IrregularError:
            explain_instances(instances, dtypes)
            raise
    if "inputs" in document:
        return _from_inputs(document["inputs"], dtypes), False
    raise InvalidRequestError("Missing 'inputs' or 'instances' key")


def _columns(instances: list[Any], dtypes: Mapping[str, str]) -> dict[str, list[Any]]:
    if set(map(type, instances)) != {dict}:
        if len(dtypes) > 1:
            raise IrregularError("the instances are not objects")
        return dict.fromkeys(dtypes, instances)
    if set(map(len, instances)) != {len(dtypes)}:
        raise IrregularError("an instance has more or fewer keys than there are inputs")
    try:
        return {name: list(map(itemgetter(name), instances)) for name in dtypes}
    except KeyError as error:
        raise IrregularError(f"an instance has no key {error}") from error


def _from_inputs(inputs: object, dtypes: Mapping[str, str]) -> dict[str, Array]:
    if not has_names(inputs):
        if len(dtypes) > 1:
            raise InvalidRequestError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        inputs = dict.fromkeys(dtypes, inputs)
    for name in dtypes:
        if name not in inputs:
            raise InvalidRequestError(f"Missing named input: {name} in 'inputs' object.")
    try:
        return _arrays(inputs, dtypes)
    except IrregularError:
        for name, dtype in dtypes.items():
            explain_tensor(inputs[name], dtype)
        raise


def _arrays(values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, dtype in dtypes.items():
        elements, shape = flatten(values[name], dtype)
        arrays[name] = np.array(elements, dtype).reshape(shape)  # NumPy's "float" has 64 bits
    return arrays
