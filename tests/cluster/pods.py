"""Pods of podman, made of what kubectl renders, that leave nothing behind."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.manifests import Manifest, for_podman, rendered
from tests.manifests import LOCAL
from tests.pull.sources import free_port
from tests.tools import require_program, skip_outside_ci

SECONDS = 180.0  # for any command of podman
# podman's default limits are above what a container may be allowed to ask for, and its default
# runtime, crun, starts nothing in the hybrid mode of cgroups (versions 1 and 2 together).
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
"""
# In these pods 10.0.2.2 is the loopback interface of this machine.
NETWORK = "--network=slirp4netns:allow_host_loopback=true"


class Podman:
    """The command, with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        for program in ("podman", "runc", "catatonit", "slirp4netns"):
            require_program(program, program)
        path = folder / "containers.conf"
        path.write_text(CONFIGURATION)
        self._environment = os.environ | {"CONTAINERS_CONF": str(path)}
        if (problem := self.run("info")).returncode != 0:
            skip_outside_ci(f"`podman info` fails: {problem.stderr}")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def __call__(self, *arguments: str) -> str:
        """What a command prints, the log lines of containers included."""
        finished = self.run(*arguments)
        assert finished.returncode == 0, finished.stderr
        return (finished.stdout + finished.stderr).strip()

    def inspect(self, name: str) -> dict[str, Any]:
        description: dict[str, Any] = json.loads(self.run("inspect", name).stdout)[0]
        return description


@dataclass
class Played:
    """A pod of `podman play kube`, and how that command ended."""

    name: str
    port: int  # of this machine, for the service
    result: subprocess.CompletedProcess[str]

    def container(self, name: str) -> str:
        """The name that podman gives to a container of the pod."""
        return f"{self.name}-{name}"


def overlay(folder: Path, images: str, source: str, port: int) -> list[Manifest]:
    """What an overlay of `local` makes, with names, images, a source and a port of its own."""
    ports = [{"containerPort": 8000, "hostIP": "127.0.0.1", "hostPort": port}]
    containers = {"containers": [{"name": "serve", "ports": ports}]}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "actor-critic-serve"},
        "spec": {"template": {"spec": containers}},
    }
    kustomization = {
        "nameSuffix": f"-{folder.name}",
        "resources": [os.path.relpath(LOCAL, folder.resolve())],
        "images": [
            {"name": f"localhost/actor-critic-{one}", "newName": f"localhost/{images}-{one}"}
            for one in ("serve", "pull", "train")
        ],
        "configMapGenerator": [
            {
                "name": "actor-critic-serve",
                "behavior": "merge",
                "literals": [f"SERVING_SOURCE={source}"],
            }
        ],
        "patches": [{"patch": json.dumps(patch)}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return rendered(str(folder))


def rename_volumes(pod: Manifest) -> list[str]:
    """Make a pod's volumes its own, and return their names: podman 4.3 knows them by name alone."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    mounts = [
        mount
        for container in [*spec.get("initContainers", []), *spec["containers"]]
        for mount in container["volumeMounts"]
    ]
    for volume in [*spec["volumes"], *mounts]:
        volume["name"] = f"{name}-{volume['name']}"
    claims = [one.get("persistentVolumeClaim", {}).get("claimName") for one in spec["volumes"]]
    return [volume["name"] for volume in spec["volumes"]] + [one for one in claims if one]


@contextmanager
def played(
    podman: Podman,
    folder: Path,
    images: str,
    source: str = "http://127.0.0.1:9/models",
    choose: Callable[[list[Manifest]], list[Manifest]] = for_podman,
) -> Iterator[Played]:
    """Start the pod of the service, or what `choose` makes of the manifests, and remove it."""
    port = free_port()
    manifests = choose(overlay(folder, images, source, port))
    (pod,) = (one for one in manifests if one["kind"] == "Pod")
    volumes = rename_volumes(pod)
    path = folder / "pod.yaml"
    path.write_text("---\n".join(f"{json.dumps(one)}\n" for one in manifests))
    try:
        result = podman.run("play", "kube", NETWORK, str(path))
        yield Played(pod["metadata"]["name"], port, result)
    finally:
        podman.run("play", "kube", "--down", str(path))
        podman.run("volume", "rm", "--force", *volumes)
