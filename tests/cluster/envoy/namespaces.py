"""Machines as network namespaces: each has an address, and can be cut off from the others."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT
from tests.tools import skip_outside_ci


class Machine(NamedTuple):
    """A network namespace that is connected to the balancer's alone."""

    name: str
    address: str

    @property
    def within(self) -> tuple[str, ...]:
        """A command that runs another on this machine."""
        return "ip", "netns", "exec", self.name

    def cut_off(self) -> None:
        """Drop every packet from and to other machines, without an error to their senders."""
        for chain in ("INPUT", "OUTPUT"):
            subprocess.run([*self.within, "iptables", "-A", chain, "-j", "DROP"], check=True)

    def reconnect(self) -> None:
        """Undo `cut_off`."""
        subprocess.run([*self.within, "iptables", "-F"], check=True)


class Network(NamedTuple):
    """The balancer's machine, and those of services."""

    balancer: Machine
    machines: list[Machine]
    names: Path

    def name(self, machines: list[Machine]) -> None:
        """Let `replica` be the name of these machines."""
        aside = self.names.with_suffix(".new")
        aside.write_text("\n".join(one.address for one in machines))
        aside.rename(self.names)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def network(folder: Path, count: int) -> Iterator[Network]:
    """Make a network; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        skip_outside_ci("network namespaces need root")
    if shutil.which("ip") is None or shutil.which("iptables") is None:
        skip_outside_ci("ip or iptables is missing: apt-get install iproute2 iptables")
    prefix = f"envoy{os.getpid()}"
    balancer = Machine(f"{prefix}-b", "")
    machines = [Machine(f"{prefix}-{n}", f"10.99.{n}.2") for n in range(count)]
    with ExitStack() as stack:
        for machine in (balancer, *machines):
            try:
                _ip("netns", "add", machine.name)
            except subprocess.CalledProcessError as error:
                skip_outside_ci(f"network namespaces are not allowed here: {error.stderr!r}")
            stack.callback(_ip, "netns", "delete", machine.name)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        for number, machine in enumerate(machines):
            link = f"to{number}"
            peer = ("peer", "name", "eth0", "netns", machine.name)
            _ip("link", "add", link, "netns", balancer.name, "type", "veth", *peer)
            ends = [(balancer, link, f"10.99.{number}.1"), (machine, "eth0", machine.address)]
            for one, device, address in ends:
                _ip("-n", one.name, "address", "add", f"{address}/24", "dev", device)
                _ip("-n", one.name, "link", "set", device, "up")
        # `ip netns exec` shows these files in the place of those in /etc.
        settings = Path("/etc/netns", balancer.name)
        settings.mkdir(parents=True)
        stack.callback(shutil.rmtree, settings)
        (settings / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (settings / "hosts").write_text("127.0.0.1 localhost\n")
        made = Network(balancer, machines, folder / "addresses")
        made.name(machines)
        names = [sys.executable, "-m", "tests.cluster.envoy.names", str(made.names)]
        server = stack.enter_context(subprocess.Popen([*balancer.within, *names], cwd=ROOT))
        stack.callback(server.terminate)
        yield made
