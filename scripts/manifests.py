"""Render a folder with `kubectl kustomize`, and check its images or make pods for podman.

    python -m scripts.manifests check deploy/kubernetes/local
    python -m scripts.manifests pod deploy/kubernetes/local | podman play kube -

It needs PyYAML, which the `.venv` made by `make` has.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

USAGE = "usage: python -m scripts.manifests check|pod FOLDER"
RENDER_SECONDS = 60.0
# Where the template of a pod is, by kind.
TEMPLATES = {
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"), ("spec", "template")
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


class ManifestsError(Exception):
    """The manifests cannot be read; the message says why in one line."""


def rendered(folder: str) -> list[Manifest]:
    """The manifests of a folder with a kustomization.

    Raises:
        ManifestsError: PyYAML or kubectl is missing, or kubectl refuses the folder or
            times out.
    """
    try:
        import yaml  # type: ignore[import-untyped]  # it has no types
    except ImportError as error:
        raise ManifestsError("PyYAML is missing here: use .venv/bin/python, of `make`") from error
    command = ["kubectl", "kustomize", folder]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_SECONDS)
    except FileNotFoundError as error:
        raise ManifestsError("kubectl is missing: apt-get install kubernetes-client") from error
    except subprocess.TimeoutExpired as error:
        raise ManifestsError(f"kubectl kustomize {folder} took {RENDER_SECONDS:g} s") from error
    if finished.returncode != 0:
        reason = " ".join(finished.stderr.split()) or f"exit status {finished.returncode}"
        raise ManifestsError(f"kubectl kustomize {folder}: {reason}")
    return [manifest for manifest in yaml.safe_load_all(finished.stdout) if manifest]


def name_of(manifest: Manifest) -> str:
    """Such as `Deployment actor-critic-serve`."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def pod_template(manifest: Manifest) -> Manifest | None:
    """The template of the pods that a manifest makes, if it makes some; a Pod is its own."""
    if manifest["kind"] == "Pod":
        return manifest
    found: Any = manifest
    for key in TEMPLATES.get(manifest["kind"], ("absent",)):
        found = found.get(key, {})
    return found or None


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """The containers of its pods, init containers first."""
    spec = (pod_template(manifest) or {}).get("spec", {})
    for kind in ("initContainers", "containers"):
        yield from spec.get(kind) or []


def image_problems(manifests: list[Manifest]) -> list[str]:
    """One line for each container without an image, or with one that has no tag and no digest.

    The schemas of Kubernetes do not require an image. One without a tag is a placeholder of the
    base, or would change with every push to the registry.
    """
    problems = []
    for manifest in manifests:
        for container in containers(manifest):
            image = container.get("image")
            where = f"{name_of(manifest)}: container {container.get('name', 'without a name')}"
            if not image:
                problems.append(f"{where} has no image")
            elif "@" not in image and ":" not in image.rpartition("/")[2]:
                what = "no tag and no digest: set it under `images` of the kustomization"
                problems.append(f"{where} has the image {image}, with {what}")
    return problems


def for_podman(manifests: list[Manifest]) -> list[Manifest]:
    """The Deployments as pods, and the ConfigMaps that they name.

    podman 4.3 restarts the init containers of a Deployment even after they have succeeded.
    """
    chosen = [one for one in manifests if one["kind"] == "ConfigMap"]
    for manifest in manifests:
        template = pod_template(manifest)
        if manifest["kind"] == "Deployment" and template:
            metadata = {**template.get("metadata", {}), "name": manifest["metadata"]["name"]}
            spec = {**template["spec"], "restartPolicy": "Never"}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            chosen.append(pod)
    return chosen


def main(arguments: list[str]) -> int:
    """Run a command; mistakes are one line each."""
    match arguments:
        case [("check" | "pod") as command, folder]:
            pass
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2
    try:
        manifests = rendered(folder)
    except ManifestsError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    problems = image_problems(manifests)
    for problem in problems:
        sys.stderr.write(f"Error: {problem}\n")
    if problems:
        return 2
    if command == "pod":
        # JSON is YAML.
        sys.stdout.write("---\n".join(f"{json.dumps(one)}\n" for one in for_podman(manifests)))
    else:
        count = sum(len(list(containers(manifest))) for manifest in manifests)
        sys.stdout.write(f"{count} containers, each with an image\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
