"""`compare` and `promote --if-better`: on logs of versions that were really exported."""

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import urllib3
from click.testing import CliRunner

from serving.cli import commands
from serving.client import PolicyClient
from serving.policy.sampling import uniforms_of
from serving.record import agreement
from serving.record.lines import Block, Decision, Feedback
from serving.record.outcomes import join
from serving.record.reader import read_lines
from serving.registry.trial import Trials
from serving.schemas import ModelVersion
from tests.artefacts import edit_card, publish
from tests.comparisons import Lines, canary, decided, write_log
from tests.conftest import run, wait_until
from tests.decision_logs import recording_service
from tests.signatures import mistake_here
from tests.test_outcomes import fed, time

# Both let the pole fall soon: they are evaluated in little time.
CHAMPION, CHALLENGER = np.array([[0, 0, 2, 0], [0.3, 0, 1, 0]], np.float32)
ROWS = np.random.default_rng(0).uniform(-0.2, 0.2, (300, 4)).astype(np.float32)


def pushes_along(weights: Any) -> Callable[[Any], tuple[Any, Any]]:
    import tensorflow as tf

    def policy(observations: Any) -> tuple[Any, Any]:
        push = 5 * tf.linalg.matvec(observations, weights)
        return tf.stack([-push, push], axis=1), push

    return policy


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 push to where a weighted sum of the observations points."""
    from training.config import Environment
    from training.export import export

    base = tmp_path_factory.mktemp("exported") / "models" / "cartpole"
    environment = Environment("CartPole-v1")
    for weights in (CHAMPION, CHALLENGER):
        policy = pushes_along(weights)
        export(base, policy, environment, episodes=20, reward_threshold=5, return_bounds=(0, 500))
    return base.parent


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """These, and copies of version 2: 3 without bounds, 4 of another environment."""
    models = tmp_path / "models"
    changes: list[Callable[[Path], object]] = [
        lambda _: None,
        lambda _: None,
        lambda path: edit_card(path, lambda card: card.update(return_bounds=None)),
        lambda path: edit_card(path, lambda card: card.update(environment="Acrobot-v1")),
    ]
    (models / "cartpole").mkdir(parents=True)
    for version, change in enumerate(changes, 1):
        source = exported / "cartpole" / str(min(version, 2))
        publish(source, models / "cartpole" / str(version), change)
    return models


@pytest.fixture(autouse=True)
def _trials_of_the_session(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process, which has run TensorFlow, take the fork server of before."""
    for module in ("serving.registry.promotion", "serving.registry.trial"):
        monkeypatch.setattr(f"{module}.Trials", lambda: nullcontext(trials))


def arguments(models: Path, log: Path, champion: int = 1, challenger: int = 2) -> list[str]:
    versions = ("--champion", str(champion), "--challenger", str(challenger))
    return ["compare", *versions, "--log", str(log), "--models", str(models)]


def compared(models: Path, log: Path) -> Any:
    finished = CliRunner().invoke(commands, [*arguments(models, log), "--json"])
    assert (finished.exit_code, finished.stderr) == (0, ""), finished.output
    return json.loads(finished.stdout)


def test_the_command_says_which_version_is_better(models: Path, tmp_path: Path) -> None:
    lines = canary(models, 60)
    found = compared(models, write_log(tmp_path / "log", lines))
    values: dict[int, list[float]] = {1: [], 2: []}
    for decision, feedback in zip(lines[::2], lines[1::2], strict=True):
        assert isinstance(decision, Decision)
        assert isinstance(feedback, Feedback)
        assert feedback.return_ is not None
        values[decision.model.version].append(feedback.return_)
    assert found["answer"] == "better"
    assert found["more_episodes"] is None
    for key, version in (("champion", 1), ("challenger", 2)):
        assert found[key]["episodes"] == len(values[version])
        assert found[key]["mean_return"] == pytest.approx(np.mean(values[version]))
    assert found["difference"] == pytest.approx(np.mean(values[2]) - np.mean(values[1]))
    low, high = found["confidence_interval"]
    assert 0 < low < 60 < high
    report = run("serving", *arguments(models, tmp_path / "log"))
    assert (report.returncode, report.stderr) == (0, "")
    assert "\nbetter?        better\n" in report.stdout
    assert f"between {low:+.2f} and {high:+.2f} with 95% confidence at all times" in report.stdout
    reverse = CliRunner().invoke(commands, arguments(models, tmp_path / "log", 2, 1))
    assert "\nbetter?        worse\n" in reverse.stdout


def test_without_enough_episodes_it_says_about_how_many_more(models: Path, tmp_path: Path) -> None:
    lines = canary(models, 20)
    found = compared(models, write_log(tmp_path / "log", lines[:200]))
    assert found["answer"] == "not yet known"
    low, high = found["confidence_interval"]
    assert low < 0 < high
    assert found["more_episodes"] > 0
    report = CliRunner().invoke(commands, arguments(models, tmp_path / "log")).stdout
    assert f"not yet known; about {found['more_episodes']:,} more episodes may tell" in report
    empty = write_log(tmp_path / "empty", [decided(models, 0, "a", 1)])
    found = compared(models, empty)
    assert found["difference"] is None
    assert found["confidence_interval"] == [-500, 500]
    report = CliRunner().invoke(commands, arguments(models, empty)).stdout
    assert "not yet known, nor how many more episodes would tell" in report


def test_the_order_of_the_lines_changes_nothing(models: Path, tmp_path: Path) -> None:
    lines = canary(models, 30)
    first = compared(models, write_log(tmp_path / "one", lines))
    assert compared(models, write_log(tmp_path / "two", lines[::-1])) == first


def test_episodes_count_up_to_the_first_that_is_still_running(models: Path, tmp_path: Path) -> None:
    lines = canary(models, 60, episodes=100)
    without_end = [line for line in lines if getattr(line, "episode", "") != "e40"]
    began = [line for line in lines if line.episode == "e40" and isinstance(line, Decision)]
    found = compared(models, write_log(tmp_path / "running", [*without_end, *began]))
    assert found["champion"]["episodes"] + found["challenger"]["episodes"] == 40
    assert found["left_out"]["waiting"] == 60
    # An hour later nobody waits for it any more.
    later = decided(models, 8000, "later", 1)
    found = compared(models, write_log(tmp_path / "abandoned", [*without_end, *began, later]))
    assert found["champion"]["episodes"] + found["challenger"]["episodes"] == 99
    assert found["left_out"]["abandoned"] == 1
    assert found["left_out"]["waiting"] == 1


def test_only_episodes_of_one_version_of_a_canary_are_compared(
    models: Path, tmp_path: Path
) -> None:
    lines = canary(models, 60, episodes=20)
    lines += [
        decided(models, 50, "before", 1, selection="without a canary"),
        fed(51, "before", whole=500.0),
        decided(models, 50, "spanning", 1),
        decided(models, 51, "spanning", 2),
        fed(52, "spanning", whole=500.0),
        fed(53, "e0", whole=500.0),
        fed(53, "nobody", whole=500.0),
    ]
    found = compared(models, write_log(tmp_path / "log", lines))
    assert found["champion"]["episodes"] + found["challenger"]["episodes"] == 20
    assert found["left_out"] == {"abandoned": 0, "waiting": 0, "spanning": 1, "not_canary": 1}
    assert found["feedback"] == {"late": 0, "double": 1, "unknown": 1, "without_episode": 0}
    report = CliRunner().invoke(commands, arguments(models, tmp_path / "log")).stdout
    left_out = "1 of two versions or selections, 1 where only one of the two was selected"
    assert f"\nleft out       {left_out}\nfeedback       1 double, 1 unknown\n" in report


def test_decisions_on_record_tell_how_often_the_two_differ(models: Path, tmp_path: Path) -> None:
    sampled, greedy = ROWS[:200], ROWS[200:]
    lines: Lines = []
    asked: list[dict[str, Any]] = [{"seed": 7}, {"seed": 8, "deterministic": True}]
    for start, (rows, fields) in enumerate(zip((sampled, greedy), asked, strict=True)):
        columns: dict[str, Any] = {
            "actions": [0] * len(rows),
            "log_probabilities": [-0.1] * len(rows),
            "state_values": [1.0] * len(rows),
            "observations": rows.tolist(),
        }
        lines.append(decided(models, start, "a", 1, **columns, **fields))
    found = compared(models, write_log(tmp_path / "log", lines))["decisions"]
    pushes = np.stack([5 * ROWS @ weights for weights in (CHAMPION, CHALLENGER)])
    greedily = (pushes[0] > 0) != (pushes[1] > 0)
    assert 0 < greedily.sum() < 300
    assert found["rows"] == 300
    assert found["greedy"] == pytest.approx(greedily.mean())
    # Action 0 where the uniform is below its probability.
    left = 1 / (1 + np.exp(2 * pushes))
    uniforms = uniforms_of([7], [200])
    drawn = (uniforms < left[0][:200]) != (uniforms < left[1][:200])
    expected = (drawn.sum() + greedily[200:].sum()) / 300
    assert found["recorded"] == pytest.approx(expected)
    assert found["recorded"] != found["greedy"]


def test_of_many_rows_the_newest_are_recomputed(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "MAX_ROWS", 10)
    newest = agreement.NewestRows()
    columns: dict[str, Any] = {
        "actions": [0] * 3,
        "log_probabilities": [0.0] * 3,
        "state_values": [0.0] * 3,
    }
    for seconds in [*range(20, 40), *range(20)]:
        rows = ROWS[:3].tolist()
        newest.add(decided(models, seconds, "a", 1, observations=rows, seed=1, **columns))
    newest.add(decided(models, 50, "a", 1))  # without rows
    assert [one.time for one in newest.take()] == [time(seconds) for seconds in (37, 38, 39)]


def refusal(models: Path, log: Path, champion: int = 1, challenger: int = 2) -> str:
    return mistake_here(commands, *arguments(models, log, champion, challenger))


def test_versions_that_cannot_be_compared_are_refused(models: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", canary(models, 60, episodes=20))
    message = refusal(models, log, 1, 3)
    assert "return_bounds of version 1 is (0.0, 500.0), that of version 3 is None" in message
    publish(models / "cartpole" / "3", models / "cartpole" / "5")
    assert "the cards have no return_bounds, without which" in refusal(models, log, 3, 5)
    message = refusal(models, log, 1, 4)
    assert "environment of version 1 is CartPole-v1, that of version 4 is Acrobot-v1" in message
    assert "version 1 cannot be compared with itself" in refusal(models, log, 1, 1)
    assert "cartpole/9 cannot be read: No such file" in refusal(models, log, 1, 9)


def test_a_log_of_something_else_is_refused(models: Path, tmp_path: Path) -> None:
    lines = canary(models, 60, episodes=20)
    assert "holds no decision log" in refusal(models, models)
    (first, *_) = lines
    assert isinstance(first, Decision)
    other = msgspec.structs.replace(first, model=ModelVersion("acrobot", 1, "d"))
    message = refusal(models, write_log(tmp_path / "model", [other]))
    assert "has no decision of the model cartpole; there are: acrobot" in message
    other = msgspec.structs.replace(first, model=ModelVersion("cartpole", 2, "0123456789ab"))
    message = refusal(models, write_log(tmp_path / "digest", [other]))
    assert "version 2 on record has the digest 0123456789ab, and the one on the disk " in message
    log = write_log(tmp_path / "cut", lines)
    (file,) = log.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert file.name in refusal(models, log)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (b"NaN", "w-0a-1.jsonl, line "),
        (b"null", "w-0a-1.jsonl, line "),
        (b"500.5", "episode e3 has the return 500.5, outside the return_bounds 0 to 500"),
        (b"-1", "episode e3 has the return -1, outside the return_bounds 0 to 500"),
    ],
)
def test_a_return_that_cannot_be_is_refused(
    models: Path, tmp_path: Path, reward: bytes, message: str
) -> None:
    lines = canary(models, 60, episodes=20)
    wrong = [line for line in lines if getattr(line, "return_", None) and line.episode == "e3"]
    lines[lines.index(wrong[0])] = msgspec.structs.replace(wrong[0], return_=None, rewards=[1234.5])
    log = write_log(tmp_path / "log", lines)
    (file,) = log.iterdir()
    *content, _ = file.read_bytes().replace(b"1234.5", reward).splitlines(keepends=True)
    block = Block(sha256=hashlib.sha256(b"".join(content)).hexdigest(), end="stopped")
    file.write_bytes(b"".join(content) + msgspec.json.encode(block) + b"\n")
    assert message in refusal(models, log)


def test_a_return_that_is_rounded_beyond_the_bounds_is_the_bound(
    models: Path, tmp_path: Path
) -> None:
    lines = canary(models, 0, episodes=20)
    lines = [line for line in lines if line.episode in ("e0", "e1")]
    tenth = float(np.float32(0.1))  # 5,000 of them are 500.0000075
    lines = [
        msgspec.structs.replace(line, return_=None, rewards=[tenth] * 5000)
        if isinstance(line, Feedback)
        else line
        for line in lines
    ]
    found = compared(models, write_log(tmp_path / "log", lines))
    means = {found[one]["mean_return"] for one in ("champion", "challenger")}
    assert means <= {None, 500.0}
    assert 500.0 in means


def promoted(models: Path, log: Path, *options: str) -> tuple[int, str]:
    asked = ["promote", *options, "--if-better", "--log", str(log), "--models", str(models)]
    finished = CliRunner().invoke(commands, asked)
    return finished.exit_code, finished.stdout


def test_a_version_is_promoted_if_it_is_better(models: Path, tmp_path: Path) -> None:
    (models / "cartpole" / "serve.json").write_text('{"serve": 1}')
    before = (models / "cartpole" / "serve.json").read_bytes()
    for name, better, answer in (("worse", -60, "worse"), ("equal", 0, "not yet known")):
        log = write_log(tmp_path / name, canary(models, better))
        status, printed = promoted(models, log, "2")
        assert status == 1
        assert printed.count("\n") == 1
        start = f"cartpole: version 2 is not promoted; better than 1: {answer}"
        assert printed.startswith(start)
        assert (models / "cartpole" / "serve.json").read_bytes() == before
    log = write_log(tmp_path / "better", canary(models, 60))
    status, printed = promoted(models, log, "2")
    assert (status, printed) == (0, "cartpole: version 2 is served from now on\n")
    assert json.loads((models / "cartpole" / "serve.json").read_bytes())["serve"] == 2


def test_if_better_without_what_it_needs_is_a_mistake(models: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", canary(models, 60))
    where = ("--models", str(models))
    needs = "--if-better needs a version and --log"
    assert needs in mistake_here(commands, "promote", "2", "--if-better", *where)
    given = ("--if-better", "--log", str(log), *where)
    assert needs in mistake_here(commands, "promote", *given)
    # The newest that is good is served.
    assert "cannot be compared with itself" in mistake_here(commands, "promote", "4", *given)
    (models / "cartpole" / "serve.json").write_text('{"serve": "nothing"}')
    assert "no version is served" in mistake_here(commands, "promote", "2", *given)


def test_the_log_is_where_the_service_writes_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "cartpole" / "serve.json").write_text('{"serve": 1}')
    log = write_log(tmp_path / "log", canary(models, 60))
    monkeypatch.setenv("SERVING_DECISION_LOG", str(log))
    asked = ["promote", "2", "--if-better", "--models", str(models)]
    assert CliRunner().invoke(commands, asked).exit_code == 0


def test_what_a_canary_of_a_service_records_is_compared(models: Path, tmp_path: Path) -> None:
    selection = {"serve": 1, "canaries": [{"version": 2, "share": 0.5}]}
    (models / "cartpole" / "serve.json").write_text(json.dumps(selection))
    names = [f"e{number}" for number in range(20)]
    versions: dict[str, set[int]] = {name: set() for name in names}
    with (
        recording_service(models, tmp_path, workers=1) as service,
        PolicyClient(service.url) as client,
    ):
        wait_until(
            lambda: "canary" in urllib3.request("GET", f"{service.url}/models").data.decode()
        )
        for step in range(3):
            for name in names:
                answer = client.act([ROWS[0].tolist()], episode=name, step=step)
                versions[name].add(answer.model.version)
        for name in names[:-1]:
            client.feedback(episode=name, episode_return=100.0 * min(versions[name]))
        client.feedback(episode=names[0], episode_return=4.0)
        client.feedback(episode="nobody", episode_return=4.0)
    outcomes = join(read_lines(tmp_path / "record"))
    assert [{one.model.version} for one in outcomes.episodes] == list(versions.values())
    assert outcomes.episodes[-1].return_ is None
    found = compared(models, tmp_path / "record")
    counts = [found[key]["episodes"] for key in ("champion", "challenger")]
    assert min(counts) > 0
    assert sum(counts) == 19
    assert found["difference"] == 100
    assert found["left_out"] == {"abandoned": 0, "waiting": 1, "spanning": 0, "not_canary": 0}
    assert (found["feedback"]["double"], found["feedback"]["unknown"]) == (1, 1)
    assert found["decisions"]["rows"] == 60
