"""Changed copies of an artefact."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

CARD = "assets.extra/policy.json"
GOLDEN = "assets.extra/golden.json"
SIGNATURE = "model.sig"


def publish(source: Path, target: Path, change: Callable[[Path], object] = lambda _: None) -> Path:
    """Copy a version aside, change the copy, and rename it to where it is looked for."""
    aside = shutil.copytree(source, target.parent / f".writing-{target.name}")
    change(aside)
    return aside.rename(target)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reseal(model_dir: Path) -> None:
    """Make the card's checksums true again, as docs/artefact.md describes them."""
    others = [name for name in files(model_dir) if name not in (CARD, SIGNATURE)]
    checksums = {
        name: hashlib.sha256((model_dir / name).read_bytes()).hexdigest() for name in others
    }
    edit(model_dir / CARD, lambda card: card.update(checksums=checksums | {CARD: "0" * 64}))
    zeroed = (model_dir / CARD).read_text()
    own = hashlib.sha256(zeroed.encode()).hexdigest()
    (model_dir / CARD).write_text(zeroed.replace("0" * 64, own))


def edit_card(model_dir: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the card, and reseal it."""
    edit(model_dir / CARD, change)
    reseal(model_dir)


def edit_golden(model_dir: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the golden values, and reseal the card."""
    edit(model_dir / GOLDEN, change)
    reseal(model_dir)


def unsolve(model_dir: Path) -> None:
    """Make the card say that the policy is not solved."""
    edit_card(model_dir, lambda card: card.update(solved=False))


def small_window(card: dict[str, Any]) -> None:
    """Make a card say that its evaluation was short, so that few rows tell of drift."""
    card["observations"]["histograms"]["rows"] = 1


def files(model_dir: Path) -> list[str]:
    """The path of every file in a version."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), model_dir)
        for folder, _, names in os.walk(model_dir)
        for name in names
    )
