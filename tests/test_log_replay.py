"""`replay` proves a decision log, or names the first line that is not as it was."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serving.record.files import chain
from serving.record.policies import Policies
from serving.record.reader import LogError, read_sections
from serving.record.replay import Replayed, replay
from serving.record.signing import read_verifier
from serving.registry.trial import Trials
from tests.artefacts import edit_card, publish
from tests.conftest import Trained, run
from tests.decision_logs import post, recording_service
from tests.signatures import Key

ROW = [0.01, -0.02, 0.03, 0.04]
LINES = 30  # decisions


class Recorded:
    """A log of one worker, whose file is signed, and the policies that decided."""

    def __init__(self, folder: Path, policies: Policies) -> None:
        self.folder, self.policies = folder, policies
        (self.file,) = folder.iterdir()

    def copy(self, target: Path) -> "Recorded":
        return Recorded(shutil.copytree(self.folder, target), self.policies)

    def replay(self, trusted: Path | None = None) -> Replayed | str:
        """What is found, or what is wrong, in which a file is called FILE."""
        is_signed = read_verifier(trusted) if trusted else None
        try:
            return replay(read_sections(self.folder, is_signed), self.policies.find)
        except LogError as error:
            return str(error).replace(self.file.name, "FILE")


@pytest.fixture(scope="module")
def recorded(
    signed: Path, key: Key, trials: Trials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    private = folder / "key.pem"
    private.write_bytes(key.private.read_bytes())
    models = signed.parent.parent
    how = ("--decision-log-key", str(private))
    with recording_service(models, folder, *how, workers=1) as service:
        for number in range(LINES - 1):
            body = {"observations": [ROW] * (1 + number % 3), "episode": "e", "step": number}
            post(f"{service.url}/act", body)
            if number % 10 == 0:
                time.sleep(0.1)  # so that there are several blocks
        instance = {"observations": ROW, "uniforms": 0.5, "deterministic": True}
        predict = {"signature_name": "act", "instances": [instance]}
        post(f"{service.url}/v1/models/cartpole:predict", predict)
        post(f"{service.url}/feedback", {"episode": "e", "return": 29.0})
    with Policies(models, None, trials) as policies:
        yield Recorded(folder / "record", policies)


@pytest.mark.long
def test_the_command_proves_a_log_and_says_what_is_wrong(
    recorded: Recorded, signed: Path, key: Key, tmp_path: Path
) -> None:
    where = ("--models", str(signed.parent.parent), "--trusted-keys", str(key.trusted))
    proved = run("serving", "replay", str(recorded.folder), *where)
    assert (proved.returncode, proved.stderr) == (0, "")
    assert proved.stdout.splitlines() == [
        f"proved         {LINES} decisions, bit for bit",
        "feedback       1 lines",
    ]
    as_json = run("serving", "replay", str(recorded.file), *where, "--json")
    rows = sum(1 + number % 3 for number in range(LINES - 1)) + 1
    assert json.loads(as_json.stdout) == {
        **{"exact": LINES, "close": 0, "without_rows": 0, "rows": rows},
        **{"feedback": 1, "lost": 0},
    }
    log = recorded.copy(tmp_path / "log")
    log.file.write_bytes(log.file.read_bytes()[:-100])
    wrong = run("serving", "replay", str(log.folder), *where)
    assert (wrong.returncode, wrong.stderr) == (1, "")
    assert re.fullmatch(r"not proved: .*, line \d+: is not a line of .*\n", wrong.stdout)


def number_of(line: bytes) -> int | None:
    number = json.loads(line).get("number")
    return None if number is None or b'"type":"head"' in line else int(number)


def edit_decision(number: int, change: Callable[[dict[str, Any]], Any]) -> Any:
    """Change the decision of that number, as a text editor would."""

    def edit(lines: list[bytes]) -> None:
        (place,) = [at for at, line in enumerate(lines) if number_of(line) == number]
        line = json.loads(lines[place])
        change(line)
        lines[place] = json.dumps(line, separators=(",", ":")).encode() + b"\n"

    return edit


def remove(lines: list[bytes]) -> None:
    """Remove a decision that another one follows in the same block; blocks end by the clock."""
    pairs = enumerate(pairwise(lines))
    del lines[next(at for at, pair in pairs if None not in map(number_of, pair))]


def exchange(lines: list[bytes]) -> None:
    one, other = (
        next(at for at, line in enumerate(lines) if number_of(line) == number) for number in (7, 8)
    )
    lines[one], lines[other] = lines[other], lines[one]


def other_action(line: dict[str, Any]) -> None:
    line["actions"] = [1 - line["actions"][0], *line["actions"][1:]]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_decision(7, other_action), r"line \d+: was recorded with action"),
        (
            edit_decision(7, lambda line: line.update(state_values=[50.0])),
            r"line \d+: was recorded with the state_values \[50.0\], recomputed",
        ),
        (edit_decision(7, lambda line: line.update(warnings=["no"])), "the warnings"),
        (edit_decision(7, lambda line: line.update(seed=None)), "lacks a field that every"),
        (edit_decision(7, lambda line: line.update(observations=[[1.0]])), "cannot have been dec"),
        (edit_decision(7, lambda line: line.update(actions=[])), "lacks a field that every"),
        (edit_decision(7, lambda line: line.update(actions="x")), "is not a line of a decision"),
        (edit_decision(7, lambda line: line.update(id="other")), r"lines \d+ to \d+ are not what"),
        (remove, r"has the number \d+ where \d+ was written"),
        (exchange, "has the number 8 where 7 was written"),
        (lambda lines: lines.pop(), "FILE is truncated"),
        (lambda lines: lines.__delitem__(slice(20, None)), "FILE is truncated"),
        (lambda lines: lines.__setitem__(-1, lines[-1][:20]), "is not a line of a decision log"),
        (lambda lines: lines.extend(lines[1:3]), "FILE continues after its last line"),
        (lambda lines: lines.insert(9, lines[0]), "begins another worker's file: two files are"),
        (lambda lines: lines.pop(0), "does not begin as a file of a decision log"),
        (lambda lines: lines.clear(), "does not begin as a file of a decision log"),
    ],
)
def test_the_first_line_that_is_not_as_it_was_is_named(
    recorded: Recorded, tmp_path: Path, edit: Callable[[list[bytes]], Any], message: str
) -> None:
    log = recorded.copy(tmp_path / "log")
    lines = log.file.read_bytes().splitlines(keepends=True)
    edit(lines)
    log.file.write_bytes(b"".join(lines))
    found = log.replay()
    assert isinstance(found, str)
    assert found.startswith("FILE")
    assert re.search(message, found), found
    assert "\n" not in found


def test_a_wrong_line_is_named_before_a_file_that_is_cut_off(
    recorded: Recorded, tmp_path: Path
) -> None:
    log = recorded.copy(tmp_path / "log")
    forge(log.file, lambda line: line.update(state_values=[50.0]))
    content = log.file.read_bytes()
    log.file.write_bytes(content[: content.rfind(b"\n", 0, -1) + 1])
    assert "was recorded with the state_values [50.0]" in str(log.replay())


def forge(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a decision, and compute every hash again."""
    lines = path.read_bytes().splitlines(keepends=True)
    edit_decision(7, change)(lines)
    done: list[bytes] = []
    sha256, start = "", 0
    for place, line in enumerate(lines):
        if b'"type":"block"' in line:
            block = json.loads(line)
            sha256 = block["sha256"] = chain(sha256, b"".join(done[start:place])).sha256
            line, start = json.dumps(block).encode() + b"\n", place + 1
        done.append(line)
    path.write_bytes(b"".join(done))


def test_a_forged_log_is_found_by_its_signature(
    recorded: Recorded, key: Key, tmp_path: Path
) -> None:
    log = recorded.copy(tmp_path / "log")
    forge(log.file, lambda line: line.update(episode="another"))
    assert isinstance(log.replay(), Replayed)  # the hashes are right
    assert "which no trusted key has signed" in str(log.replay(key.trusted))


def test_a_key_that_is_not_trusted_proves_nothing(recorded: Recorded, other_key: Key) -> None:
    assert "which no trusted key has signed" in str(recorded.replay(other_key.trusted))


def test_last_bits_are_told_apart_from_another_decision(recorded: Recorded, tmp_path: Path) -> None:
    log = recorded.copy(tmp_path / "log")

    def nearly(line: dict[str, Any]) -> None:
        line["state_values"] = [value * (1 + 3e-7) for value in line["state_values"]]

    forge(log.file, nearly)
    found = log.replay()
    assert isinstance(found, Replayed)
    assert (found.exact, found.close) == (LINES - 1, 1)


def test_a_log_of_another_artefact_is_told(
    recorded: Recorded, trained: Trained, trials: Trials, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    model_dir = publish(trained.model_dir, models / "cartpole" / "1")
    edit_card(model_dir, lambda card: card.update(environment="Other-v0"))
    log = recorded.copy(tmp_path / "log")
    with Policies(models, None, trials) as log.policies:
        wrong = r"FILE, line \d+: .* has the digest \w+, not \w+"
        assert re.fullmatch(wrong, str(log.replay()))
    with Policies(tmp_path, None, trials) as log.policies:
        assert re.fullmatch(r"FILE, line \d+: .* cannot be read: .*", str(log.replay()))


def test_a_missing_file_is_told(recorded: Recorded, tmp_path: Path) -> None:
    log = recorded.copy(tmp_path / "log")
    log.file.rename(log.folder / log.file.name.replace("-000001", "-000002"))
    assert "not to this file" in str(log.replay())
    log.file.with_name("other.jsonl").touch()
    assert "is not named as a file of a decision log" in str(log.replay())


def test_a_file_that_is_written_now_is_read_up_to_its_last_block(
    recorded: Recorded, key: Key, tmp_path: Path
) -> None:
    log = recorded.copy(tmp_path / "log")
    lines = log.file.read_bytes().splitlines(keepends=True)
    blocks = [at for at, line in enumerate(lines) if b'"type":"block"' in line]
    part = b"".join(lines[: blocks[2] + 1]) + lines[blocks[2] + 1][:20]
    log.file.unlink()
    log.file.with_name(f"{log.file.name}.open").write_bytes(part)
    found = log.replay(key.trusted)
    assert isinstance(found, Replayed)
    assert 0 < found.exact < LINES
