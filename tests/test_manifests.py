"""`scripts/manifests.py`: every container of the manifests has an image; mistakes are one line."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scripts.manifests import containers, image_problems
from tests.conftest import ENVIRONMENT, ROOT
from tests.manifests import BASE, LOCAL, config, manifests, require_kubectl


def run_script(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.manifests", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_images_of_the_overlay_are_there_and_those_of_the_base_are_told_one_a_line() -> None:
    require_kubectl()
    good = run_script("check", str(LOCAL))
    assert (good.returncode, good.stdout) == (0, "3 containers, each with an image\n"), good.stderr
    refused = run_script("check", str(BASE))
    assert refused.returncode == 2
    assert [line.split(", with")[0] for line in refused.stderr.splitlines()] == [
        f"Error: {where} has the image {image}"
        for where, image in (
            ("Deployment actor-critic-serve: container pull", "actor-critic-pull"),
            ("Deployment actor-critic-serve: container serve", "actor-critic-serve"),
            ("CronJob actor-critic-train: container train", "actor-critic-train"),
        )
    ]


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("registry:5000/policies/serve:1.2", None),
        ("serve@sha256:0123", None),
        ("registry:5000/policies/serve", "no tag"),
        ("", "has no image"),
        (None, "has no image"),
    ],
)
def test_an_image_needs_a_tag_or_a_digest(image: str | None, problem: str | None) -> None:
    container = {"name": "one"} | ({} if image is None else {"image": image})
    made = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    found = image_problems([made])
    assert len(found) == (problem is not None)
    assert problem is None or (problem in found[0] and found[0].startswith("Pod p: container one"))


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "ReplicaSet"])
def test_what_makes_pods_of_a_template_needs_images_too(kind: str) -> None:
    pod = {"spec": {"containers": [{"name": "one"}]}}
    made = {"kind": kind, "metadata": {"name": "p"}, "spec": {"template": pod}}
    assert image_problems([made]) == [f"{kind} p: container one has no image"]


def test_a_container_without_an_image_is_one_line(tmp_path: Path) -> None:
    require_kubectl()
    (tmp_path / "pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}, {}]}\n"
    )
    (tmp_path / "kustomization.yaml").write_text("resources: [pod.yaml]\n")
    for command in ("check", "pod"):
        refused = run_script(command, str(tmp_path))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.splitlines() == [
            f"Error: Pod p: container {name} has no image" for name in ("c", "without a name")
        ]


@pytest.mark.parametrize(
    ("arguments", "variables", "reason"),
    [
        (["check"], {}, "usage: "),
        (["check", "/nowhere"], {}, "Error: kubectl kustomize /nowhere: "),
        (["check", str(BASE)], {"PATH": ""}, "Error: kubectl is missing"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], variables: dict[str, str], reason: str
) -> None:
    require_kubectl()
    refused = run_script(*arguments, **variables)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(reason)
    assert refused.stderr.count("\n") == 1


def test_the_overlay_of_the_document_is_complete(tmp_path: Path) -> None:
    require_kubectl()
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = re.findall(r"^    # kustomization.yaml\n((?:    .*\n)+)", page, re.MULTILINE)
    base = os.path.relpath(BASE, tmp_path.resolve())
    written = re.sub(r"https://\S+(?=])", base, textwrap.dedent(block))
    (tmp_path / "kustomization.yaml").write_text(written)
    assert run_script("check", str(tmp_path)).stdout == "3 containers, each with an image\n"
    assert config(tmp_path)["SERVING_PIN"] == "3"


def test_containers_are_found_in_every_kind_that_has_some() -> None:
    found = {
        kind: [one["name"] for one in containers(manifest)]
        for (kind, _), manifest in manifests(str(BASE)).items()
    }
    assert {kind: names for kind, names in found.items() if names} == {
        "Deployment": ["pull", "serve"],
        "CronJob": ["train"],
    }
