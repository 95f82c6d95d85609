"""The manifests of `deploy/kubernetes/`, as kubectl renders them."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from scripts.manifests import Manifest, rendered
from tests.conftest import ROOT
from tests.tools import require_program, skip_outside_ci

BASE = ROOT / "deploy" / "kubernetes" / "base"
LOCAL = ROOT / "deploy" / "kubernetes" / "local"
MINOR = 21  # of Kubernetes 1: from then on kubectl reads overlays as they are written today


def require_kubectl() -> None:
    """Skip a test where there is no kubectl that can render an overlay; CI must have one."""
    require_program("kubectl", "kubernetes-client")
    command = ["kubectl", "version", "--client", "--output=json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    minor = re.search(r'"minor": "(\d+)', shown)
    if minor is None or int(minor[1]) < MINOR:
        skip_outside_ci(f"kubectl is older than 1.{MINOR}, or does not say what it is")


@cache
def manifests(folder: str) -> dict[tuple[str, str], Manifest]:
    """By kind and name, what the base and the overlays make; tests do not change it."""
    require_kubectl()
    found = rendered(folder)
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(by_name) == len(found)
    return by_name


def of_base(kind: str, name: str = "actor-critic-serve") -> dict[str, Any]:
    """The `spec` of a manifest of the base."""
    spec: dict[str, Any] = manifests(str(BASE))[kind, name]["spec"]
    return spec


def config(folder: Path) -> dict[str, str]:
    """The variables in the ConfigMap of a folder."""
    ((name, found),) = (
        (name, one["data"])
        for (kind, name), one in manifests(str(folder)).items()
        if kind == "ConfigMap"
    )
    assert re.fullmatch(r"actor-critic-serve-[a-z0-9]{10}", name)
    data: dict[str, str] = found
    return data
