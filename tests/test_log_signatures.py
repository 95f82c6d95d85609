"""A signed decision log: what others write, change or remove is not proved, and never signed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.record.files import Sign, Stream, chain, recover, signed_text
from serving.record.lines import Block, Feedback
from serving.record.reader import LogError, read_lines, read_sections
from serving.record.signing import read_signer, read_verifier
from tests.decision_logs import lines_of
from tests.signatures import Key
from tests.test_decision_log import numbered, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "record").mkdir()
    return tmp_path / "record"


def stream(folder: Path, sign: Sign | None, file_bytes: int = 10**6) -> Stream:
    return Stream(folder, file_bytes=file_bytes, sample=1.0, rows=True, sign=sign)


def proved(folder: Path, key: Key) -> list[int] | str:
    """The numbers of the lines that the signatures prove, or what is wrong."""
    try:
        sections = list(read_sections(folder, read_verifier(key.trusted)))
    except LogError as error:
        return str(error)
    assert {section.damage for section in sections} == {""}
    lines = [located.line for section in sections for located in section.lines]
    return [line.number for line in lines if isinstance(line, Feedback)]


def signed_stream(folder: Path, key: Key) -> list[Path]:
    """Three parts of two lines each, and a fourth with the end of the stream."""
    writer = stream(folder, read_signer(key.private), 1)
    for number in (1, 3, 5):
        write(writer, number, 2)
    writer.close()
    return sorted(folder.iterdir())


def edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_a_stream_whose_last_parts_are_removed_is_not_proved(folder: Path, key: Key) -> None:
    parts = signed_stream(folder, key)
    assert proved(folder, key) == [1, 2, 3, 4, 5, 6]
    for path in parts[1:]:
        path.unlink()
    assert "the next one is missing" in str(proved(folder, key))
    edit(parts[0], b'"end":"rotated"', b'"end":"stopped"')
    assert "which no trusted key has signed" in str(proved(folder, key))


def in_the_first_format(folder: Path, key: Key) -> Path:
    """A log as it was written before blocks were signed: only the last hash is."""
    sign = read_signer(key.private)
    head = b'{"type":"head","stream":"0a","part":1,"number":1,"previous":"","time":"t",'
    lines = head + b'"sample":1.0,"rows":true}\n'
    first = chain("", lines)
    rest = b"".join(numbered(1, 2))
    last = chain(first.sha256, rest, "stopped")
    signature = sign(last.sha256)
    content = lines + as_line({"type": "block", "sha256": first.sha256}) + rest
    content += as_line(
        {"type": "block", "sha256": last.sha256, "end": "stopped", "signature": signature}
    )
    path = folder / "20261129T112832Z-0a-000001.jsonl"
    path.write_bytes(content)
    return path


def test_a_log_of_the_first_format_is_proved_and_no_other_can_pass_for_one(
    folder: Path, key: Key, tmp_path: Path
) -> None:
    in_the_first_format(folder, key)
    assert proved(folder, key) == [1, 2]
    new = tmp_path / "new"
    new.mkdir()
    parts = signed_stream(new, key)
    for path in parts[1:]:
        path.unlink()
    edit(parts[0], b'"format":2', b'"format":1')
    assert any(section.damage for section in read_sections(parts[0]))


def killed(folder: Path, sign: Sign | None) -> Path:
    """What a worker leaves that is killed after two blocks of two lines each."""
    writer = stream(folder, sign)
    write(writer, 1, 2)
    write(writer, 3, 2)
    (path,) = folder.iterdir()
    left = path.with_name(f"left{path.name}")
    shutil.copyfile(path, left)  # has not the lock
    path.unlink()
    return left.rename(path)


def as_line(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def forge(path: Path, _: Key) -> None:
    """Change a return, and compute every hash again."""
    done: list[bytes] = []
    sha256, start = "", 0
    for line in path.read_bytes().replace(b'"return":1.0', b'"return":500.0').splitlines(True):
        if b'"type":"block"' in line:
            block = json.loads(line)
            sha256 = block["sha256"] = chain(sha256, b"".join(done[start:])).sha256
            done.append(as_line(block))
            start = len(done)
        else:
            done.append(line)
    path.write_bytes(b"".join(done))


def add_a_line(path: Path, _: Key) -> None:
    path.write_bytes(path.read_bytes() + numbered(5, 1)[0])


def unsign(path: Path, _: Key) -> None:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        line.pop("signature", None)
    path.write_bytes(b"".join(map(as_line, lines)))


def of_another_key(path: Path, other: Key) -> None:
    content = path.read_bytes()
    last = lines_of(path)[-1]
    assert isinstance(last, Block)
    assert last.signature is not None
    signature = read_signer(other.private)(signed_text(last))
    path.write_bytes(content.replace(last.signature.encode(), signature.encode()))


def spoil(path: Path, _: Key) -> None:
    path.write_bytes(path.read_bytes() + b'{"type":"block"\xff\n')


def test_the_file_of_a_killed_worker_is_signed_where_its_own_key_signed_all_of_it(
    folder: Path, key: Key
) -> None:
    sign = read_signer(key.private)
    path = killed(folder, sign)
    assert proved(folder, key) == [1, 2, 3, 4]  # while it has no end
    path.write_bytes(path.read_bytes() + numbered(5, 1)[0][:20])  # it was killed while it wrote
    recover(folder, sign)
    end = lines_of(path.with_suffix(""))[-1]
    assert isinstance(end, Block)
    assert end.end == "recovered"
    assert proved(folder, key) == [1, 2, 3, 4]


def test_of_what_a_killed_worker_was_writing_nothing_is_left_however_long_it_was(
    folder: Path,
) -> None:
    path = killed(folder, None)
    path.write_bytes(path.read_bytes() + b'{"type":"decision","id":"' + b"x" * 5_000)
    recover(folder, None)
    assert isinstance(lines_of(path.with_suffix(""))[-1], Block)
    assert [line.number for line in read_lines(folder)] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [forge, add_a_line, unsign, of_another_key, spoil])
def test_what_others_wrote_is_never_signed_and_no_line_is_lost(
    folder: Path, key: Key, other_key: Key, change: Callable[[Path, Key], Any]
) -> None:
    sign = read_signer(key.private)
    path = killed(folder, sign)
    change(path, other_key)
    before = path.read_bytes()
    recover(folder, sign)
    after = path.with_suffix("").read_bytes()
    assert after.startswith(before)
    assert b'"end":"recovered"' in after
    assert b'"signature"' not in after[len(before) :]
    refused = proved(folder, key)
    assert isinstance(refused, str), refused
    if change is add_a_line:
        assert len(list(read_lines(folder))) == 5


def test_a_file_that_is_still_open_is_proved_up_to_its_last_block(folder: Path, key: Key) -> None:
    path = killed(folder, read_signer(key.private))
    forge(path, key)
    assert "which no trusted key has signed" in str(proved(folder, key))


def test_a_worker_that_is_killed_between_two_files_leaves_a_log_that_is_proved(
    folder: Path, key: Key
) -> None:
    sign = read_signer(key.private)
    parts = signed_stream(folder, key)
    for path in parts[2:]:
        path.unlink()
    for path in parts[:2]:
        content = path.read_bytes().splitlines(keepends=True)
        path.with_name(f"{path.name}.open").write_bytes(b"".join(content[:-1]))
        path.unlink()
    assert proved(folder, key) == [1, 2, 3, 4]
    recover(folder, sign)
    assert proved(folder, key) == [1, 2, 3, 4]


@pytest.mark.parametrize("signature", ["", "AAAA", "A", "\u00e9"])
def test_a_signature_that_is_none_is_told(folder: Path, key: Key, signature: str) -> None:
    writer = stream(folder, None)
    write(writer, 1, 1)
    writer.close()
    (path,) = folder.iterdir()
    edit(path, b'"end":"stopped"', b'"end":"stopped","signature":"%b"' % signature.encode())
    assert "which no trusted key has signed" in str(proved(folder, key))
