"""Rows per second of each protocol of the service, for the same observations.

    python -m serving run &
    python benchmarks/protocols.py [--url http://127.0.0.1:8000] [--model cartpole]
                                   [--rows 65536] [--repeats 15]

One connection sends one request at a time. Each repeat uses every protocol once, so that noise
affects all equally. `exchange` is the time from the encoded request to the encoded response.
`orjson` and `json` include what a client does with that library: encoding a float32 array of
observations, and decoding all six outputs to NumPy arrays. Rows per second are computed from the
median; `x` is relative to the slowest protocol.
"""

import http.client
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import numpy as np
import numpy.typing as npt
import orjson

HEADER = "Inference-Header-Content-Length"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
SEED = 7

Array = npt.NDArray[Any]
Dumps = Callable[[dict[str, Any]], bytes]
Loads = Callable[[bytes], Any]
Outputs = dict[str, Array]


class Body(NamedTuple):
    """The body of a request or a response."""

    content: bytes
    head_size: int | None = None  # length of the JSON if binary tensors follow it


class Protocol(NamedTuple):
    """How to encode a request, and how to decode the response."""

    path: str
    encode: Callable[[Array, Dumps], Body]
    decode: Callable[[Body, Loads], Outputs]


def with_orjson(content: dict[str, Any]) -> bytes:
    """JSON as the fastest clients encode it."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def with_json(content: dict[str, Any]) -> bytes:
    """JSON as most clients encode it."""
    return json.dumps(content, default=lambda array: array.tolist()).encode()


def act(observations: Array, dumps: Dumps) -> Body:
    """`POST /act`."""
    return Body(dumps({"observations": observations, "seed": SEED}))


def rows(observations: Array, dumps: Dumps) -> Body:
    """TensorFlow Serving's `instances`."""
    return Body(dumps({"instances": observations}))


def columns(observations: Array, dumps: Dumps) -> Body:
    """TensorFlow Serving's `inputs`."""
    return Body(dumps({"inputs": observations}))


def tensor_metadata(observations: Array) -> dict[str, Any]:
    """The fields of a tensor of the Open Inference Protocol, without its data."""
    return {"name": "observations", "shape": observations.shape, "datatype": "FP32"}


def infer(observations: Array, dumps: Dumps) -> Body:
    """The Open Inference Protocol in JSON."""
    tensor = tensor_metadata(observations) | {"data": observations.ravel()}
    return Body(dumps({"inputs": [tensor], "parameters": {"seed": SEED}}))


def infer_binary(observations: Array, dumps: Dumps) -> Body:
    """The Open Inference Protocol in Triton's binary tensors."""
    size = {"binary_data_size": observations.nbytes}
    tensor = tensor_metadata(observations) | {"parameters": size}
    parameters = {"seed": SEED, "binary_data_output": True}
    head = dumps({"inputs": [tensor], "parameters": parameters})
    return Body(b"".join([head, observations.data]), len(head))


def read_act(body: Body, loads: Loads) -> Outputs:
    """The lists of `POST /act`."""
    answer = loads(body.content)
    return {name: np.array(answer[name]) for name in list(answer)[:5]}


def read_rows(body: Body, loads: Loads) -> Outputs:
    """The objects of `predictions`."""
    answer = loads(body.content)["predictions"]
    return {name: np.array([row[name] for row in answer]) for name in answer[0]}


def read_columns(body: Body, loads: Loads) -> Outputs:
    """The lists of `outputs`."""
    return {name: np.array(values) for name, values in loads(body.content)["outputs"].items()}


def read_infer(body: Body, loads: Loads) -> Outputs:
    """Tensors in JSON."""
    return {
        tensor["name"]: np.array(tensor["data"]).reshape(tensor["shape"])
        for tensor in loads(body.content)["outputs"]
    }


def read_binary(body: Body, loads: Loads) -> Outputs:
    """Binary tensors."""
    start = body.head_size or 0
    outputs = {}
    for tensor in loads(body.content[:start])["outputs"]:
        dtype = DTYPES[tensor["datatype"]]
        size = tensor["parameters"]["binary_data_size"]
        flat: Array = np.frombuffer(body.content, dtype, size // dtype.itemsize, start)
        outputs[tensor["name"]] = flat.reshape(tensor["shape"])
        start += size
    return outputs


def exchange(connection: http.client.HTTPConnection, path: str, body: Body) -> Body:
    """Send one request.

    Raises:
        click.ClickException: the response is an error.
    """
    headers = {"Content-Type": "application/json"}
    if body.head_size is not None:
        headers = {"Content-Type": "application/octet-stream", HEADER: str(body.head_size)}
    connection.request("POST", path, body.content, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise click.ClickException(f"{path}: {response.status} {content[:200]!r}")
    size = response.headers[HEADER]
    return Body(content, None if size is None else int(size))


@click.command(context_settings={"show_default": True})
@click.option("--url", default="http://127.0.0.1:8000", help="URL of a running service.")
@click.option("--model", default="cartpole", help="Name of the model.")
@click.option("--rows", "count", type=click.IntRange(1), default=65_536, help="Rows per request.")
@click.option("--repeats", type=click.IntRange(3), default=15, help="Requests per protocol.")
def main(url: str, model: str, count: int, repeats: int) -> None:
    """Send the same observations with every protocol in turn; print a table."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    protocols = {
        "POST /act": Protocol(f"/models/{model}/act", act, read_act),
        "TF Serving, rows": Protocol(f"/v1/models/{model}:predict", rows, read_rows),
        "TF Serving, columns": Protocol(f"/v1/models/{model}:predict", columns, read_columns),
        "OIP, JSON": Protocol(f"/v2/models/{model}/infer", infer, read_infer),
        "OIP, binary": Protocol(f"/v2/models/{model}/infer", infer_binary, read_binary),
    }
    connection.request("GET", f"/v2/models/{model}")
    size = json.loads(connection.getresponse().read())["inputs"][0]["shape"][1]
    observations = np.random.default_rng(0).uniform(-0.05, 0.05, (count, size)).astype(np.float32)
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"exchange": [], "orjson": [], "json": []} for name in protocols
    }
    logits = []
    for _ in range(repeats + 1):  # the first is a warm-up
        for name, (path, encode, decode) in protocols.items():
            for library, dumps, loads in (
                ("orjson", with_orjson, orjson.loads),
                ("json", with_json, json.loads),
            ):
                started = time.perf_counter()
                body = encode(observations, dumps)
                sent = time.perf_counter()
                response = exchange(connection, path, body)
                received = time.perf_counter()
                outputs = decode(response, loads)
                seconds[name][library].append(time.perf_counter() - started)
                if library == "orjson":
                    seconds[name]["exchange"].append(received - sent)
                logits.append(outputs["action_logits"].astype(np.float32))
    if any((other != logits[0]).any() for other in logits):
        raise click.ClickException("the protocols gave different logits")
    for what in ("exchange", "orjson", "json"):
        rates = {n: count / statistics.median(times[what][1:]) for n, times in seconds.items()}
        slowest = min(rates.values())
        click.echo(f"{what:<22}      rows/s       ms      x")
        for name, rate in rates.items():
            click.echo(f"{name:<22}{rate:12,.0f} {1000 * count / rate:8.1f} {rate / slowest:6.1f}")


if __name__ == "__main__":
    main()
