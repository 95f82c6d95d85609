"""Services, and Envoy in front of them with the configuration of compose's profile `envoy`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from tests.conftest import ROOT, Service, pause, running_service, wait_until
from tests.faults.wire import children
from tests.pull.sources import free_port, is_open
from tests.tools import skip_outside_ci
from tests.users import changes_user, let_in, ordinary_user

# Envoy's words for why a service is sent no requests.
UNHEALTHY = ("failed_active_health_check", "failed_outlier_check")


def envoy_program() -> Path:
    """Envoy's binary, which others may read; without it the test is skipped."""
    found = sorted(ROOT.glob(".cluster/lib/python3*/site-packages/envoy/_bin/envoy"))
    if not found:
        skip_outside_ci("Envoy is missing: make .cluster/installed")
    return found[0]


def make_certificate(folder: Path) -> Path:
    """Write `tls.crt`, of localhost, and `tls.key`; returns the first."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")),
        ],
        capture_output=True,
        check=True,
    )
    (folder / "tls.key").chmod(0o644)
    return folder / "tls.crt"


class Addressed(Protocol):
    """A service, by where it listens."""

    @property
    def address(self) -> str:
        """HOST:PORT."""


class Replica:
    """A service on a port that it keeps."""

    def __init__(
        self,
        models: Path,
        folder: Path,
        *options: str,
        address: str | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}" if address is None else address
        self.models = models
        self._folder = folder
        self._within = within
        host, _, port = self.address.partition(":")
        self._options = ("--workers", "1", "--host", host, "--port", port, *options)
        self._running = ExitStack()
        self._starts = 0
        folder.mkdir()

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self._starts += 1
        log = self._folder / f"log-{self._starts}"
        running = running_service(self.models, log, *self._options, within=self._within)
        self.service: Service = self._running.enter_context(running)

    def metric(self, name: str) -> dict[str, float]:
        """Values of a metric of the service, by their labels as they are written."""
        code = "import sys, tests.faults.wire as w; print(w.json.dumps(w.metric(*sys.argv[1:])))"
        command = (*self._within, sys.executable, "-c", code, f"http://{self.address}", name)
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        values: dict[str, float] = json.loads(asked.stdout)
        return values

    def actions(self) -> float:
        """How many actions the service has decided on since it was started."""
        return sum(self.metric("policy_actions_total").values())

    def wait_until_live(self) -> None:
        wait_until(lambda: is_open(int(self.address.partition(":")[2])))

    def processes(self) -> list[int]:
        """The master's first, then those that descend from it."""
        found = [self.service.process.pid]
        for pid in found:
            found += children(pid)
        return found

    def send(self, how: signal.Signals) -> None:
        """Send a signal to every process, as to those of a container."""
        for pid in self.processes():
            with suppress(ProcessLookupError):  # it ended with one of the others
                os.kill(pid, how)

    def pause(self) -> None:
        for pid in self.processes():
            pause(pid)

    def kill(self) -> None:
        """End every process at once, as where a machine loses its power."""
        self.send(signal.SIGKILL)
        self.service.process.wait(10)
        self._running.close()

    def terminate(self) -> None:
        """End it as an orchestrator does; it must succeed."""
        self.service.process.send_signal(signal.SIGTERM)
        assert self.service.process.wait(40) == 0
        self._running.close()

    def close(self) -> None:
        if self._starts and self.service.process.poll() is None:
            self.send(signal.SIGCONT)
        self._running.close()


class Envoy:
    """Envoy with the configuration of the repository, in which only places are replaced."""

    origin = "https://localhost:8443"
    admin = "http://127.0.0.1:9901"

    def __init__(
        self, folder: Path, *replaced: tuple[str, str], within: Sequence[str] = ()
    ) -> None:
        self.certificate = make_certificate(folder)
        self._folder = folder
        self._within = within
        text = (ROOT / "proxy" / "envoy.yaml").read_text()
        for inside, here in [("/etc/tls/", f"{folder}/"), *replaced]:
            assert inside in text
            text = text.replace(inside, here)
        (folder / "envoy.yaml").write_text(text)
        if changes_user():
            let_in(folder)

    @classmethod
    def on_loopback(cls, folder: Path, replicas: Sequence[Addressed]) -> "Envoy":
        """Envoy on free ports, in front of services of this machine."""
        port, admin = free_port(), free_port()
        endpoint = "- endpoint: {address: {socket_address: {address: %s, port_value: %s}}}"
        endpoints = [endpoint % tuple(one.address.split(":")) for one in replicas]
        envoy = cls(
            folder,
            ("address: 0.0.0.0, port_value: 8443", f"address: 127.0.0.1, port_value: {port}"),
            ("port_value: 9901", f"port_value: {admin}"),
            (endpoint % ("replica", 8000), f"\n{' ' * 8}".join(endpoints)),
        )
        envoy.origin, envoy.admin = f"https://localhost:{port}", f"http://127.0.0.1:{admin}"
        return envoy

    @property
    def url(self) -> str:
        """Where clients find the policy service."""
        return f"{self.origin}/policy"

    def start(self) -> None:
        """Start it; it listens once every service has been checked."""
        options = ("--concurrency", "2", "--disable-hot-restart", "--log-level", "warning")
        program = (*self._within, *ordinary_user(), str(envoy_program()))
        with (self._folder / "envoy.log").open("a") as log:
            self.process = subprocess.Popen(
                [*program, "-c", str(self._folder / "envoy.yaml"), *options], stderr=log
            )

    def wait_until_live(self) -> None:
        """Wait until it listens, after the first check of every service."""
        wait_until(lambda: bool(self._ask_admin("/server_info").get("state") == "LIVE"), 20)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(10)

    def _ask_admin(self, path: str) -> Any:
        code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        asked = subprocess.run(
            [*self._within, sys.executable, "-S", "-c", code, self.admin + path],
            capture_output=True,
            text=True,
        )
        return json.loads(asked.stdout) if asked.returncode == 0 else {}

    def count(self, name: str) -> int:
        """A counter or gauge of the cluster `serve`, such as `upstream_rq_retry`."""
        stats = self._ask_admin(f"/stats?format=json&filter=^cluster.serve.{name}$").get("stats")
        return sum(one["value"] for one in stats or [])

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What Envoy knows of each service, by its address: its health and its statistics."""
        for cluster in self._ask_admin("/clusters?format=json").get("cluster_statuses", []):
            if cluster["name"] == "serve":
                return {_address(host): host for host in cluster["host_statuses"]}
        return {}

    def active(self, replica: Replica) -> int:
        """How many requests Envoy has sent to a service that are not answered."""
        stats = self.hosts()[replica.address]["stats"]
        return sum(int(one.get("value", 0)) for one in stats if one["name"] == "rq_active")

    def usable(self) -> set[str]:
        """The addresses of the services that are sent requests."""
        return {
            address
            for address, host in self.hosts().items()
            if not any(host["health_status"].get(kind) for kind in UNHEALTHY)
            and host["health_status"]["eds_health_status"] == "HEALTHY"
        }

    def wait_until_usable(self, replicas: Sequence[Addressed], seconds: float = 60) -> None:
        """Wait until exactly those services are sent requests."""
        wait_until(lambda: self.usable() == {one.address for one in replicas}, seconds)


def _address(host: dict[str, Any]) -> str:
    socket_address = host["address"]["socket_address"]
    return f"{socket_address['address']}:{socket_address['port_value']}"
