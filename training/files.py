"""Files that are whole after a crash of the machine, or are not there."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is never seen half written."""
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Sync a folder and all in it to disk (fsync)."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
