"""The benchmark command: the same numbers as JSON, as CSV, as a table and as a plot."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import run
from training.benchmark import BaselineError, read_baseline

COLUMNS = ["seed", "solved", "env_steps", "seconds", "greedy", "sampled"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark") / "made" / "by the command"


@pytest.fixture(scope="module")
def printed(output: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """The JSON object on standard output, and the table on standard error."""
    finished = run("training", "benchmark", "--seeds", "2", "--json", "--output", str(output))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("\n") == 1
    return json.loads(finished.stdout), [line.split() for line in finished.stderr.splitlines()]


def test_json_has_every_run_and_their_median_and_worst(
    printed: tuple[dict[str, Any], list[list[str]]],
) -> None:
    result, _ = printed
    assert list(result) == ["preset", "runs", "median", "worst", "interquartile_mean"]
    assert result["preset"] == "ppo"
    first, second = result["runs"]
    assert list(first) == list(second) == COLUMNS
    assert (first["seed"], second["seed"]) == (100, 101)
    for measured in (first, second):
        assert measured["solved"] is True
        assert 1_000 < measured["env_steps"] < 200_000
        assert measured["seconds"] > 0
        assert 475.0 <= measured["sampled"] <= 500.0
        assert 475.0 <= measured["greedy"] <= 500.0
    for name, worse in [("env_steps", max), ("seconds", max), ("greedy", min), ("sampled", min)]:
        assert result["median"][name] == pytest.approx((first[name] + second[name]) / 2)
        assert result["worst"][name] == worse(first[name], second[name])
    assert list(result["median"]) == list(result["worst"]) == COLUMNS[2:]
    # Of two runs nothing is left out.
    middle = result["interquartile_mean"]
    assert middle["value"] == pytest.approx(result["median"])
    for name in COLUMNS[2:]:
        ends = sorted([first[name], second[name]])
        assert [middle["low"][name], middle["high"][name]] == pytest.approx(ends)


def test_the_table_does_not_mix_with_json(
    printed: tuple[dict[str, Any], list[list[str]]],
) -> None:
    result, (header, *runs, median, worst, title, value, low, high) = printed
    assert header == COLUMNS
    for cells, measured in zip(runs, result["runs"], strict=True):
        assert cells == [
            str(measured["seed"]),
            "True",
            str(measured["env_steps"]),
            *(f"{measured[name]:.2f}" for name in COLUMNS[3:]),
        ]
    assert median[:2] == ["median", "2/2"]
    assert worst[:2] == ["worst", "2/2"]
    assert worst[2] == str(result["worst"]["env_steps"])
    assert title == ["interquartile", "mean"]
    for cells in (value, low, high):
        estimate = result["interquartile_mean"][cells[0]]
        assert cells[1:] == [f"{estimate[name]:.2f}" for name in COLUMNS[2:]]


def test_csv_has_the_runs(printed: tuple[dict[str, Any], list[list[str]]], output: Path) -> None:
    result, _ = printed
    with (output / "ppo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {name: str(value) for name, value in measured.items()} for measured in result["runs"]
    ]


@pytest.mark.usefixtures("printed")
def test_the_plot_is_a_picture(output: Path) -> None:
    with Image.open(output / "ppo.png") as image:
        assert image.format == "PNG"
        assert image.size == (840, 480)
        colours = image.convert("RGB").getcolors(maxcolors=100_000)
    assert colours is not None
    assert {(31, 119, 180), (255, 127, 14)} <= {colour for _, colour in colours}
    assert sorted(path.name for path in output.iterdir()) == ["ppo.csv", "ppo.png"]


def test_without_json_the_table_is_the_output_and_a_seed_repeats(
    printed: tuple[dict[str, Any], list[list[str]]], output: Path, tmp_path: Path
) -> None:
    finished = run(
        *("training", "benchmark", "--seeds", "1", "--first-seed", "101"),
        *("--output", str(tmp_path), "--baseline", str(output / "ppo.csv")),
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    lines = [line.split() for line in finished.stdout.splitlines()]
    header, again, median, worst, *estimates = lines
    assert header == COLUMNS
    assert (median[0], worst[0]) == ("median", "worst")
    _, (_, first, before, *_) = printed
    steps = COLUMNS.index("env_steps")
    assert estimates[4] == ["probability", "of", "improvement"]
    # Over the same run, and over the other one, which took more or fewer steps.
    expected = {True: 0.75, False: 0.25}[int(before[steps]) < int(first[steps])]
    assert estimates[5][:2] == ["value", f"{expected:.2f}"]
    seconds = COLUMNS.index("seconds")
    del again[seconds], before[seconds]
    assert again == before


def test_the_result_is_printed_even_if_its_files_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "ppo.csv").mkdir()
    budget = ("--max-env-steps", "1000", "--evaluation-episodes", "3")
    finished = run(
        *("training", "benchmark", "--seeds", "1", "--json", "--output", str(tmp_path)), *budget
    )
    assert finished.returncode == 1
    (measured,) = json.loads(finished.stdout)["runs"]
    assert measured["env_steps"] >= 1_000
    *_, line = finished.stderr.splitlines()
    assert line == f"Error: {tmp_path}/ppo.csv cannot be written: Is a directory"
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("1" * 150_000, "field larger than field limit"),
        ("nan", "not finite"),
        ("inf", "not finite"),
    ],
)
def test_a_baseline_of_something_else_is_refused(steps: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"{','.join(COLUMNS)}\n100,True,{steps},2.5,500.0,500.0\n")
    with pytest.raises(BaselineError, match=f"is not the table of a benchmark: .*{message}"):
        read_baseline(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "--preset", "dqn"], "'dqn' is not one of"),
        (["--seeds", "1", "--output", "README.md"], "README.md"),
        (["--seeds", "1", "--output", "/proc/nothing"], "/proc/nothing cannot be written"),
        (["--seeds", "1", "--baseline", "README.md"], "README.md is not the table of a benchmark"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    finished = run("training", "benchmark", *arguments)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr


def test_a_baseline_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ppo.csv").touch()
    (tmp_path / "same").symlink_to(tmp_path)
    where = ("--output", str(tmp_path / "same"), "--baseline", str(tmp_path / "ppo.csv"))
    finished = run("training", "benchmark", "--seeds", "1", *where)
    line = f"Error: the results would overwrite {tmp_path}/ppo.csv: give another --output\n"
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "", line)
