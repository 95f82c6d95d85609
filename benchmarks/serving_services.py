"""The contenders of `benchmarks/serving_comparison.py`: starting, measuring and stopping them.

Every process of a contender has a mark in its environment, by which it is found even if it has left
its session or lost its parent, as some processes of LitServe and BentoML do.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.common import ROOT, peer_python
from benchmarks.serving_load import Body, LoadError, send

LABELS = {
    "noop": "no-op Flask",
    "ours": "ours",
    "fastapi": "FastAPI + uvicorn",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}
MARK = "BENCHMARK_MARK"
START_SECONDS = 120
STOP_SECONDS = 15
# As in serving/server/master.py; uvicorn's default of 5 fails with heavy requests.
KEEP_ALIVE_SECONDS = "75"
OUTPUTS = ("actions", "action_logits", "log_probabilities", "state_values")
APPS = "benchmarks.serving_contenders"


class Start(NamedTuple):
    """Seconds from the start of the first process."""

    listening_seconds: float  # when the first connection was accepted
    ready_seconds: float  # from then on every response had the status 200


@dataclass(frozen=True)
class Service:
    """A running contender.

    Attributes:
        url: its base URL.
        process: the process that was started.
        mark: of all its processes.
        log: their output.
        started: start time, by `time.perf_counter`.
    """

    url: str
    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    started: float

    def pss_mb(self) -> float:
        """Proportional set size of all its processes, in MB (10**6 bytes)."""
        kibibytes = 0
        for pid in marked(self.mark):
            with contextlib.suppress(OSError):  # the process has just ended
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kibibytes += int(rollup.partition("\nPss:")[2].split(maxsplit=1)[0])
        return kibibytes * 1024 / 1e6

    def wait_until_ready(self, body: Body, workers: int) -> Start:
        """Return after 20 successful requests per worker in a row.

        Raises:
            LoadError: it exited or was not ready in time; the message has the end of its log.
        """
        parts = urlsplit(self.url)
        listening, ready, answered = None, 0.0, 0
        while answered < 20 * workers:
            elapsed = time.perf_counter() - self.started
            if self.process.poll() is not None or elapsed > START_SECONDS:
                raise LoadError(f"it did not start; its log ends:\n{self.log.read_text()[-2000:]}")
            try:
                if listening is None:
                    socket.create_connection((parts.hostname, parts.port)).close()
                    listening = time.perf_counter() - self.started
                status, _ = send(self.url, body)
            except (OSError, LoadError):
                status = 0
            if status != 200:
                answered = 0
                time.sleep(0.002)
                continue
            if not answered:
                ready = time.perf_counter() - self.started
            answered += 1
        assert listening is not None
        return Start(listening, ready)

    def wait_until_idle(self) -> None:
        """Return when it has used less than a fifth of a core for half a second.

        Raises:
            LoadError: it does not become idle.
        """
        deadline = time.monotonic() + START_SECONDS
        used, quiet = self.cpu_seconds(), 0
        while quiet < 2:
            if time.monotonic() > deadline:
                raise LoadError("it does not become idle")
            time.sleep(0.25)
            before, used = used, self.cpu_seconds()
            quiet = quiet + 1 if used - before < 0.05 else 0

    def cpu_seconds(self) -> float:
        """CPU time that all its processes have used so far."""
        ticks = 0
        for pid in marked(self.mark):
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))  # utime, stime
        return ticks / os.sysconf("SC_CLK_TCK")

    def check(self, body: Body, rows: int) -> float:
        """Send one request; returns the seconds until the response.

        Raises:
            LoadError: the response has not one entry per row.
        """
        started = time.perf_counter()
        status, content = send(self.url, body)
        seconds = time.perf_counter() - started
        if status != 200:
            raise LoadError(f"status {status}: {content[:500].decode(errors='replace')}")
        # In the Open Inference Protocol, binary tensors follow the JSON.
        response, _ = json.JSONDecoder().raw_decode(content.decode("latin-1"))
        if "outputs" in response:
            sizes = {output["name"]: output["shape"][0] for output in response["outputs"]}
        else:
            sizes = {name: len(response[name]) for name in OUTPUTS}
        for name in OUTPUTS:
            if sizes[name] != rows:
                raise LoadError(f"the response has {sizes[name]} {name} for {rows} rows")
        return seconds


@contextlib.contextmanager
def running(contender: str, models: Path, workers: int) -> Iterator[Service]:
    """Start a contender on a free port of the loopback interface; stop all its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        env = os.environ | {
            MARK: mark,
            "POLICY_DIR": str(newest_version(models)),
            "WORKERS": str(workers),
            "BENTOML_HOME": folder,
            "BENTOML_DO_NOT_TRACK": "True",
        }
        command = command_of(contender, models, port, workers)
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # without Ctrl-C: `stop` stops it gracefully
            )
        try:
            yield Service(f"http://127.0.0.1:{port}", process, mark, log, started)
        finally:
            stop(process, mark)


def command_of(contender: str, models: Path, port: int, workers: int) -> list[str | Path]:
    """The command line of a contender; its environment has the other settings."""
    if contender in ("noop", "ours"):
        module = f"{APPS}.noop" if contender == "noop" else "serving"
        options = ["--models", str(models), "--port", str(port), "--workers", str(workers)]
        return [sys.executable, "-m", module, "run", *options]
    keep_alive = ["--timeout-keep-alive", KEEP_ALIVE_SECONDS]
    options = ["--host", "127.0.0.1", "--port", str(port), *keep_alive]
    quiet = ["--no-access-log", "--log-level", "warning"]
    arguments = {
        "fastapi": ["uvicorn", f"{APPS}.fastapi_app:app", "--workers", str(workers), *quiet],
        "litserve": [f"{APPS}.litserve_app", str(port), str(workers), KEEP_ALIVE_SECONDS],
        "bentoml": ["bentoml", "serve", f"{APPS}.bentoml_app:Policy"],
    }[contender]
    if contender != "litserve":
        arguments += options
    return [peer_python("serving"), "-m", *arguments]


def newest_version(models: Path) -> Path:
    """The folder of the newest version of the model `cartpole`.

    Raises:
        LoadError: there is no version.
    """
    versions = [path for path in (models / "cartpole").glob("*") if path.name.isdecimal()]
    if not versions:
        raise LoadError(f"{models} has no cartpole/<version>")
    return max(versions, key=lambda path: int(path.name)).resolve()


def marked(mark: str) -> list[int]:
    """The processes with a mark."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Stop a contender gracefully, then kill the processes that are left."""
    try:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:  # also after a second Ctrl-C
        while left := marked(mark):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        process.wait()
