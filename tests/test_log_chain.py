"""The parts of a decision log's stream follow each other, however right their hashes are."""

from pathlib import Path
from typing import Any

import pytest

from serving.record.files import chain
from serving.record.reader import LogError, read_lines
from tests.test_decision_log import numbered
from tests.test_log_signatures import as_line, folder

__all__ = ["folder"]  # a fixture


def write_part(folder: Path, part: int, number: int, previous: str, end: Any) -> str:
    """Write a part of two lines whose hash, which is returned, is right."""
    head = {"type": "head", "stream": "0a", "part": part, "number": number, "previous": previous}
    head |= {"time": "t", "sample": 1.0, "rows": True}
    lines = as_line(head) + b"".join(numbered(number, 2))
    block = chain(previous, lines, end)
    content = lines + as_line({"type": "block", "sha256": block.sha256, "end": end})
    (folder / f"20261129T112832Z-0a-{part:06}.jsonl").write_bytes(content)
    return block.sha256


@pytest.mark.parametrize(("number", "previous"), [(2, ""), (1, "0" * 64)])
def test_a_first_part_that_goes_on_from_something_is_not_proved(
    folder: Path, number: int, previous: str
) -> None:
    write_part(folder, 1, number, previous, "stopped")
    with pytest.raises(LogError, match="line 1: is not how a first part begins"):
        list(read_lines(folder))


@pytest.mark.parametrize(
    ("end", "number", "changes_hash", "why"),
    [
        ("rotated", 3, False, ""),
        ("recovered", 3, False, ""),
        ("rotated", 4, False, "does not follow the last line of .*-000001.jsonl"),
        ("rotated", 3, True, "does not follow the last line of .*-000001.jsonl"),
        ("stopped", 3, False, "a file between .*-000001.jsonl and .*-000002.jsonl is missing"),
    ],
)
def test_a_part_follows_the_number_and_the_hash_of_one_that_has_not_stopped(
    folder: Path, end: str, number: int, changes_hash: bool, why: str
) -> None:
    first = write_part(folder, 1, 1, "", end)
    write_part(folder, 2, number, first[::-1] if changes_hash else first, "stopped")
    if why:
        with pytest.raises(LogError, match=why):
            list(read_lines(folder))
    else:
        assert [line.number for line in read_lines(folder)] == [1, 2, 3, 4]
