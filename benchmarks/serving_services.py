"""The contenders of `benchmarks/serving_comparison.py`: their start, cost and end.

Every process of a contender carries a mark in its environment, by which it is found even if it
has left its session or lost its parent, as some of LitServe's and BentoML's do.
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

from benchmarks.common import ROOT, free_port, peer_python
from benchmarks.serving_load import BODIES, Body, LoadError, ask

LABELS = {
    "noop": "no-op Flask",
    "ours": "ours",
    "fastapi": "FastAPI + uvicorn",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "before": "another checkout",
    "bun": "Bun",
    "triton": "Triton",
}
# Contenders that are not part of the project, and the variables that say where they are.
PLACES = {
    "before": ("BEFORE_CHECKOUT",),
    "bun": ("BUN", "BUN_SERVER"),
    "triton": ("TRITON_SITE", "TRITON_MODELS"),
}
PROTOCOLS = {"triton": {"infer", "binary"}}  # by default, only `act`
PROTOCOLS["ours"] = PROTOCOLS["before"] = set(BODIES)
MARK = "BENCHMARK_MARK"
START_SECONDS = 120
STOP_SECONDS = 15
# As in serving/server/worker.py; uvicorn's default of 5 breaks under heavy requests.
KEEP_ALIVE_SECONDS = "75"
ANSWERED = ("actions", "action_logits", "log_probabilities", "state_values")
APPS = "benchmarks.serving_contenders"


class Start(NamedTuple):
    """Seconds from the start of the first process."""

    listening_seconds: float  # the first connection was accepted
    ready_seconds: float  # from here on every request was answered with status 200


@dataclass(frozen=True)
class Service:
    """A contender that runs.

    Attributes:
        url: where it listens.
        process: the first one.
        mark: of all its processes.
        log: what they wrote.
        started: when, by `time.perf_counter`.
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
            with contextlib.suppress(OSError):  # it has just ended
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kibibytes += int(rollup.partition("\nPss:")[2].split(maxsplit=1)[0])
        return kibibytes * 1024 / 1e6

    def wait_until_ready(self, body: Body, workers: int) -> Start:
        """Return when 20 requests for each worker were answered in a row.

        Raises:
            LoadError: it ended or was not ready in time; the message has the end of its log.
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
                status, _ = ask(self.url, body)
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
                raise LoadError("it does not come to rest")
            time.sleep(0.25)
            before, used = used, self.cpu_seconds()
            quiet = quiet + 1 if used - before < 0.05 else 0

    def cpu_seconds(self) -> float:
        """Processor time that all its processes have taken so far."""
        seconds = 0.0
        for pid in marked(self.mark):
            with contextlib.suppress(OSError):  # it has just ended
                seconds += process_seconds(pid)
        return seconds

    def check(self, body: Body, rows: int) -> float:
        """Ask once; returns the seconds that the answer took.

        Raises:
            LoadError: the answer is not one decision per row.
        """
        asked = time.perf_counter()
        status, content = ask(self.url, body)
        seconds = time.perf_counter() - asked
        if status != 200:
            raise LoadError(f"answered {status}: {content[:500].decode(errors='replace')}")
        # In the Open Inference Protocol, binary tensors may follow the JSON.
        answer, _ = json.JSONDecoder().raw_decode(content.decode("latin-1"))
        if "outputs" in answer:
            sizes = {output["name"]: output["shape"][0] for output in answer["outputs"]}
        elif "predictions" in answer:
            predictions = answer["predictions"]
            sizes = {name: sum(name in row for row in predictions) for name in ANSWERED}
        else:
            sizes = {name: len(answer[name]) for name in ANSWERED}
        for name in ANSWERED:
            if sizes[name] != rows:
                raise LoadError(f"answered with {sizes[name]} {name} to {rows} rows")
        return seconds


def process_seconds(pid: int) -> float:
    """Processor time that a process has taken so far.

    Raises:
        OSError: it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # utime, stime


@contextlib.contextmanager
def running(contender: str, models: Path, workers: int, *options: str) -> Iterator[Service]:
    """Start a contender on a free port of the loopback interface; stop all its processes after.

    The options are appended to its own.
    """
    port = free_port()
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        env = os.environ | {
            MARK: mark,
            "POLICY_DIR": str(newest_version(models)),
            "WORKERS": str(workers),
            "PORT": str(port),
            "BENTOML_HOME": folder,
            "BENTOML_DO_NOT_TRACK": "True",
        }
        command = [*command_of(contender, models, port, workers), *options]
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=os.environ["BEFORE_CHECKOUT"] if contender == "before" else ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only us: we stop it gracefully
            )
        try:
            yield Service(f"http://127.0.0.1:{port}", process, mark, log, started)
        finally:
            stop(process, mark)


def command_of(contender: str, models: Path, port: int, workers: int) -> list[str | Path]:
    """The command line of a contender; the rest is in its environment."""
    own = ["--port", str(port), "--workers", str(workers)]
    if contender in ("ours", "before"):
        return [sys.executable, "-m", "serving", "run", "--models", models.resolve(), *own]
    if contender == "noop":
        return [sys.executable, "-m", f"{APPS}.noop", *own]
    if contender == "bun":
        all_workers = 'for _ in $(seq "$WORKERS"); do "$BUN" "$BUN_SERVER" & done; wait'
        return ["sh", "-c", all_workers]
    if contender == "triton":
        server = Path(os.environ["TRITON_SITE"], "pytriton", "tritonserver")
        return [
            server / "bin" / "tritonserver",
            f"--model-repository={os.environ['TRITON_MODELS']}",
            f"--backend-directory={server / 'backends'}",
            *("--http-address=127.0.0.1", f"--http-port={port}", f"--http-thread-count={workers}"),
            *("--allow-grpc=false", "--allow-metrics=false", "--log-info=false"),
        ]
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


def missing(contender: str) -> str | None:
    """The variable without which a contender cannot be started, if there is one."""
    return next((name for name in PLACES.get(contender, ()) if not os.environ.get(name)), None)


def newest_version(models: Path) -> Path:
    """The folder of the newest version of the model `cartpole`.

    Raises:
        LoadError: there is none.
    """
    versions = [path for path in (models / "cartpole").glob("*") if path.name.isdecimal()]
    if not versions:
        raise LoadError(f"{models} has no cartpole/<version>")
    return max(versions, key=lambda path: int(path.name)).resolve()


def marked(mark: str) -> list[int]:
    """The processes that carry a mark."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Stop a contender gracefully, and kill what outlives its first process."""
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
