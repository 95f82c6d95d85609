"""gRPC under load: this service, Triton, and a method of grpcio that does nothing.

    python -m benchmarks.grpc_load --models DIR [--rounds N] [--seconds S] [--contenders ...]

Each contender has two processes (Triton has one with threads) on loopback and is put under load by
h2load, of Debian's nghttp2-client: a client in C with one call in flight on each connection, which
sends the same bytes to all. Contenders take turns within a round, so compare figures of one round;
h2load shares the same two cores. The empty method, in `grpc.aio` and in grpcio's threads, answers
as many bytes as our answer has, without reading the message: what grpcio costs by itself.

Triton (`make .peers/triton/installed`) serves tests/conformance/peers/triton_model.py, a network of
the same shape in its Python backend. Before a contender is measured, it is sent one message of
`tritonclient`'s and must not fail, so that no errors are measured as answers.
"""

import asyncio
import contextlib
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common import free_port
from tests.conformance.servers import running_peer
from tests.conftest import running_service, wait_until

METHOD = "/inference.GRPCInferenceService/ModelInfer"
ANSWER_BYTES = {1: 330, 1024: 41_300}
WORKERS = 2


def message(rows: int) -> bytes:
    """A `ModelInferRequest` with raw contents."""
    from tritonclient.grpc import service_pb2

    array = np.random.default_rng(0).normal(0, 0.05, (rows, 4)).astype(np.float32)
    request = service_pb2.ModelInferRequest(model_name="cartpole")
    request.inputs.add(name="observations", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return bytes(request.SerializeToString())


def serve_empty(port: int, kind: str) -> None:
    """Answer until the process is ended."""
    import grpc

    options = (("grpc.so_reuseport", 1),)
    address = f"127.0.0.1:{port}"

    def answer(request: bytes) -> bytes:
        return bytes(ANSWER_BYTES[1 if len(request) < 1024 else 1024])

    def handlers(handler: Any) -> list[Any]:
        service, name = METHOD[1:].split("/")
        methods = {name: grpc.unary_unary_rpc_method_handler(handler)}
        return [grpc.method_handlers_generic_handler(service, methods)]

    if kind == "threads":
        server = grpc.server(ThreadPoolExecutor(8), options=options)
        server.add_generic_rpc_handlers(handlers(lambda request, _: answer(request)))
        server.add_insecure_port(address)
        server.start()
        server.wait_for_termination()
        return

    async def handle(request: bytes, _: Any) -> bytes:
        return answer(request)

    async def serve() -> None:
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers(handlers(handle))
        server.add_insecure_port(address)
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


@contextlib.contextmanager
def running(contender: str, models: Path, folder: Path) -> Iterator[int]:
    """Start a contender; the value is its port."""
    port = free_port()
    if contender == "ours":
        options = ("--grpc-port", str(port), "--workers", str(WORKERS))
        with running_service(models, folder / "log", *options) as service:
            log = service.log
            wait_until(lambda: log.read_text().count("serving cartpole version") == WORKERS)
            yield port
    elif contender == "triton":
        with running_peer("triton", folder, port):
            yield port
    else:
        children = []
        for _ in range(WORKERS):
            child = os.fork()
            if child == 0:
                try:
                    serve_empty(port, contender.removeprefix("empty-"))
                finally:
                    os._exit(1)
            children.append(child)
        try:
            yield port
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def ask(port: int, body: bytes) -> None:
    """Raise if a call fails; calls from a process of its own, because this one forks."""
    code = (
        "import grpc, sys\n"
        f"channel = grpc.insecure_channel('127.0.0.1:{port}')\n"
        f"call = channel.unary_unary({METHOD!r})\n"
        "call(sys.stdin.buffer.read(), timeout=60, wait_for_ready=True)\n"
    )
    subprocess.run([sys.executable, "-c", code], input=body, check=True)


def load(port: int, body: Path, connections: int, seconds: int) -> float:
    """Calls per second."""
    command = [
        *("h2load", "-D", str(seconds), "--warm-up-time=1", "-c", str(connections), "-m", "1"),
        *("-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://127.0.0.1:{port}{METHOD}",
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"finished in .*?, ([0-9.]+) req/s", finished.stdout)
    assert found is not None, finished.stdout
    assert re.search(r" 0 failed, 0 errored, 0 timeout", finished.stdout), finished.stdout
    return float(found[1])


@click.command()
@click.option("--models", type=click.Path(exists=True, path_type=Path), default=Path("models"))
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option("--seconds", type=click.IntRange(1), default=3)
@click.option("--connections", default="1,16,64")
@click.option("--rows", default="1,1024")
@click.option("--contenders", default="ours,triton,empty-threads,empty-aio")
def main(
    models: Path, rounds: int, seconds: int, connections: str, rows: str, contenders: str
) -> None:
    """Print calls per second, each round and the medians of ratios to ours."""
    figures: dict[tuple[int, int], dict[str, list[float]]] = {}
    for number in range(rounds):
        for contender in contenders.split(","):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                with running(contender, models, folder) as port:
                    for size in map(int, rows.split(",")):
                        body = message(size)
                        file = folder / "body"
                        file.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
                        ask(port, body)
                        for count in map(int, connections.split(",")):
                            value = load(port, file, count, seconds)
                            key = figures.setdefault((size, count), {})
                            key.setdefault(contender, []).append(value)
                            line = f"round {number + 1}: {contender}, {size} rows, {count}: "
                            click.echo(f"{line}{value:,.0f}")
    for (size, count), of_each in figures.items():
        for contender, values in of_each.items():
            ratios = [
                ours / value for ours, value in zip(of_each.get("ours", []), values, strict=False)
            ]
            ratio = f"; ours / {contender} {statistics.median(ratios):.2f}" if ratios else ""
            spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
            median = f"{statistics.median(values):,.0f}"
            click.echo(f"{size} rows, {count} connections: {contender} {median}{ratio}{spread}")


if __name__ == "__main__":
    main()
