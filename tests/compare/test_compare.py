"""`compare`: on logs of versions that were really exported."""

import json
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
from serving.record.lines import Decision, Feedback
from serving.record.outcomes import join
from serving.record.reader import read_lines
from tests.compare.conftest import CHALLENGER, CHAMPION
from tests.compare.logs import Lines, arguments, canary, compared, decided, write_log
from tests.conftest import run, wait_until
from tests.decision_logs import recording_service
from tests.test_outcomes import fed, time

ROWS = np.random.default_rng(0).uniform(-0.2, 0.2, (300, 4)).astype(np.float32)


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
    left_out = "1 of two versions or selections, 1 outside a canary of the two"
    assert f"\nleft out       {left_out}\nfeedback       1 double, 1 unknown\n" in report


def test_episodes_of_another_model_with_these_versions_are_not_compared(
    models: Path, tmp_path: Path
) -> None:
    lines = canary(models, 60, episodes=20)
    for version in (1, 2):
        one = decided(models, 50, f"o{version}", version)
        model = msgspec.structs.replace(one.model, name="acrobot")
        lines += [msgspec.structs.replace(one, model=model), fed(51, one.episode, whole=500.0)]
    found = compared(models, write_log(tmp_path / "log", lines))
    assert found["champion"]["episodes"] + found["challenger"]["episodes"] == 20
    assert found["left_out"]["not_canary"] == 0


def test_decisions_about_observations_of_another_length_are_not_recomputed(
    models: Path, tmp_path: Path
) -> None:
    rows = [
        decided(models, at, "a", 1, observations=[ROWS[0].tolist()[:n]])
        for at, n in ((0, 3), (1, 4))
    ]
    found = compared(models, write_log(tmp_path / "log", rows))["decisions"]
    assert found["rows"] == 1


def test_episodes_whose_version_the_client_named_are_not_compared(
    models: Path, tmp_path: Path
) -> None:
    lines = canary(models, 60, episodes=20)
    named = [decided(models, 50, f"n{version}", version, selection="") for version in (1, 2)]
    lines += [*named, *(fed(51, one.episode, whole=500.0) for one in named)]
    found = compared(models, write_log(tmp_path / "log", lines))
    assert found["champion"]["episodes"] + found["challenger"]["episodes"] == 20
    assert found["left_out"]["not_canary"] == 2


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
    # The newest one stays, however large it is.
    columns = {name: values[:1] * 11 for name, values in columns.items()}
    rows = ROWS[:11].tolist()
    newest.add(decided(models, 60, "a", 1, observations=rows, seed=1, **columns))
    assert [one.time for one in newest.take()] == [time(60)]
    assert agreement.NewestRows().take() == []


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
