"""The servers that the suite tests, and how a peer is started."""

import ctypes.util
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import urllib3

from tests.conftest import ENVIRONMENT, ROOT, wait_until
from tests.tools import skip_outside_ci

PEERS = ("triton", "mlserver", "kserve")
MODELS = Path(__file__).parent / "peers"
# A loaded machine takes this long to import what a peer needs.
START_SECONDS = 180.0


class Server(NamedTuple):
    """A server, and the name of the model there."""

    url: str
    model: str

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send a body: bytes as they are, anything else as JSON. `{model}` is the model.

        Raises AssertionError if the connection is closed without an answer.
        """
        if not isinstance(body, bytes | None):
            body = json.dumps(body).encode()
        path = path.replace("{model}", self.model)
        try:
            # A connection for each request: a server may close one after an error.
            return urllib3.request(
                method,
                f"{self.url}{path}",
                body=body,
                headers=(headers or {}) | {"Connection": "close"},
                retries=False,
                redirect=False,
                timeout=60,
            )
        except urllib3.exceptions.ProtocolError as error:
            raise AssertionError(f"no answer: {error}") from error


@contextmanager
def running_peer(name: str, folder: Path, grpc_port: int | None = None) -> Iterator[str]:
    """Start one of PEERS, which logs in a folder, and stop it; the value is its URL.

    `grpc_port` is for Triton.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = ROOT / ".peers" / name
    assert (environment / "installed").exists(), "`make test-peers` installs it"
    command = [str(environment / "bin" / "python"), "-m"]
    command += [f"tests.conformance.peers.{name}_model", str(port)]
    variables = dict(ENVIRONMENT)
    if name == "triton":
        command, variables = _triton(environment, port, folder, grpc_port)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _is_ready(f"{url}/v2/models/cartpole/ready", process), START_SECONDS)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)


def _triton(
    environment: Path, port: int, folder: Path, grpc_port: int | None
) -> tuple[list[str], dict[str, str]]:
    """Triton's command and variables, with a repository and a backend that lie in a folder."""
    if ctypes.util.find_library("python3.11") is None:
        skip_outside_ci("Triton's backend needs libpython3.11: apt-get install libpython3.11")
    (packages,) = (environment / "lib").glob("python*/site-packages")
    triton = packages / "pytriton" / "tritonserver"
    model = folder / "repository" / "cartpole"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").symlink_to(MODELS / "triton_config.pbtxt")
    (model / "1" / "model.py").symlink_to(MODELS / "triton_model.py")
    # The package has a program for each Python, of which the backend wants one in its folder.
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = triton / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    for file in (*(triton / "backends" / "python").iterdir(), stub):
        if not (backend / file.name).is_symlink():
            (backend / file.name).symlink_to(file)
    command = [
        *(str(triton / "bin" / "tritonserver"), f"--model-repository={model.parent}"),
        *(f"--backend-directory={backend.parent}", "--http-address=127.0.0.1"),
        *(f"--http-port={port}", "--allow-metrics=false", "--exit-timeout-secs=1"),
    ]
    if grpc_port is None:
        command += ["--allow-grpc=false"]
    else:
        command += ["--grpc-address=127.0.0.1", f"--grpc-port={grpc_port}"]
    return command, ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)])}


def _is_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the peer has ended; its log is beside its models"
    try:
        return urllib3.request("GET", url, retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False
