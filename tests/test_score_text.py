"""CSV and JSON Lines are read as Python's own csv, float and json read them, and fast."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import InvalidRequestError
from serving.policy.observations import to_array
from serving.score.source import RowError
from serving.score.text import read_csv, read_json_lines

NAMES = ["a", "b"]


def rows_of(path: Path) -> list[list[float]]:
    """All rows of a file in float64.

    Raises:
        RowError: of the first that is wrong, as the decisions would raise it.
    """
    reader = read_csv if path.suffix == ".csv" else read_json_lines
    rows: list[list[float]] = []
    for block in reader(path, NAMES).blocks:
        try:
            to_array(block.rows, NAMES, len(block.rows))
        except InvalidRequestError as error:
            place, _, what = error.detail.removeprefix("observations[").partition("]")
            raise RowError(block.first + int(place), what.lstrip(".: ")) from error
        rows += [
            [row[name] for name in NAMES] if isinstance(row, dict) else list(row)
            for row in block.rows
        ]
    return rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("1,2\n3,4", [[1, 2], [3, 4]]),
        ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n", [[1, 2]]),
        ("b,a\n1,2\n", [[2, 1]]),
        ('"b","a"\r\n"1","2"\r\n', [[2, 1]]),
        ("\ufeffb,a\n1,2\n", [[2, 1]]),
        ("\ufeff1,2\n", [[1, 2]]),
        (" 1, 2\n+3,.5\n4.,1e2\n", [[1, 2], [3, 0.5], [4, 100]]),
        ("a,b\n", []),
        ("a,b", []),
        ("", []),
    ],
)
def test_csv_has_names_or_not(tmp_path: Path, text: str, rows: list[list[float]]) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(text.encode())
    assert rows_of(path) == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[1,2]\n[3,4]\n", [[1, 2], [3, 4]]),
        ("[1, 2]\r\n [ 3,4 ]", [[1, 2], [3, 4]]),
        ('{"a":1,"b":2}\n{"b":3,"a":4}\n', [[1, 2], [4, 3]]),
        ('[1,2]\n{"b":3,"a":4}\n', [[1, 2], [4, 3]]),
        ("[1,2]\r\n[3,4]\r\n", [[1, 2], [3, 4]]),
        ('{"a":1,"b":2}\r\n{"b":3,"a":4}\r\n', [[1, 2], [4, 3]]),
        ('{"\\u0061":1,"b":2}\n', [[1, 2]]),
        ("", []),
    ],
)
def test_json_lines_have_lists_and_objects(
    tmp_path: Path, text: str, rows: list[list[float]]
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(text.encode())
    assert rows_of(path) == rows


@pytest.mark.parametrize(
    ("suffix", "text", "place", "what"),
    [
        (".csv", "1,2\n3\n", 2, "1 numbers, expected 2: a, b"),
        (".csv", "1\n2,3,4\n", 1, "1 numbers, expected 2: a, b"),
        (".csv", "a,b\n1,2\n\n3,4\n", 3, "0 numbers, expected 2: a, b"),
        (".csv", "1,2\n3,x\n", 2, "'x' is not a number"),
        (".csv", "1,2\n3,\n", 2, "'' is not a number"),
        (".csv", "1,2\n3,nan\n", 2, "b: nan is not finite"),
        (".csv", "1,2\n3,1e39\n", 2, "b: 1e+39 is beyond float32"),
        (".csv", "1,2\n3,1_0\n", 2, "'1_0' is not a number"),
        (".csv", "1,2\n3,true\n", 2, "'true' is not a number"),
        (".csv", "1,2\n3,[4]\n", 2, "'[4]' is not a number"),
        (".csv", '1,2\n3,"4\n', 2, "not CSV: unexpected end of data"),
        (".csv", "a,c\n1,2\n", 1, "'b' is missing, 'c' is unknown; the names are a, b"),
        (".csv", "a,b,a\n1,2,3\n", 1, "the name 'a' occurs 2 times"),
        (".csv", "1,2\n3\n4,x\n", 2, "1 numbers, expected 2: a, b"),
        (".jsonl", "[1,2]\n[3]\n", 2, "1 numbers, expected 2: a, b"),
        (".jsonl", "[1,2]\n[3,null]\n", 2, "Expected `float`, got `null` - at `$[1]`"),
        (".jsonl", "[1,2]\n[3,true]\n", 2, "Expected `float`, got `bool` - at `$[1]`"),
        (".jsonl", "[1,2]\n[3,4],[5,6]\n", 2, "not JSON: JSON is malformed: trailing charact"),
        (".jsonl", "[1,2\n[3,4]\n", 1, "not JSON: Input data was truncated"),
        (".jsonl", "[1,2]\n\n[3,4]\n", 2, "not JSON: Input data was truncated"),
        (".jsonl", "[1,2\n3,4]\n", 1, "not JSON: Input data was truncated"),
        (".jsonl", "[1,2][3,4]\n\n", 1, "not JSON: JSON is malformed: trailing charact"),
        (".jsonl", "[1,\n2] [3,4]\n", 1, "not JSON: Input data was truncated"),
        (".jsonl", '{"a":1,\n"b":2}{"a":1,"b":2}\n', 1, "not JSON: Input data was truncated"),
        (".jsonl", '{"a":1,"b":2}{"a":1,"b":2}\n\n', 1, "not JSON: JSON is malformed: trailing"),
        (".jsonl", "7\n", 1, "Expected `object | array`, got `int`"),
        (".jsonl", '{"a":1}\n', 1, "'b' is missing; the names are a, b"),
        (".jsonl", '{"a":1,"b":2,"c":3}\n', 1, "'c' is unknown; the names are a, b"),
        (".jsonl", '{"a":1,"b":2,"a":3}\n', 1, "the key 'a' occurs 2 times"),
        (".jsonl", '{"a":1,"b":"2"}\n', 1, "Expected `float`, got `str` - at `$[...]`"),
    ],
)
def test_the_first_wrong_line_is_named(
    tmp_path: Path, suffix: str, text: str, place: int, what: str
) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_text(text)
    with pytest.raises(RowError) as error:
        rows_of(path)
    assert error.value.place == place
    assert error.value.detail.startswith(what), error.value.detail


@pytest.mark.parametrize(
    ("suffix", "text", "place"),
    [
        (".csv", "a\n\n", 2),
        (".csv", "1\n\n2\n", 2),
        (".jsonl", "[]\n", 1),
        (".jsonl", "[1]\n[]\n", 2),
    ],
)
def test_an_empty_row_is_named_where_rows_have_one_number(
    tmp_path: Path, suffix: str, text: str, place: int
) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_text(text)
    with pytest.raises(RowError, match=r"^0 numbers, expected 1: a$") as error:
        list((read_csv if suffix == ".csv" else read_json_lines)(path, ["a"]).blocks)
    assert error.value.place == place


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"1,2\n3,\xff\n")
    with pytest.raises(RowError, match="can't decode byte 0xff") as error:
        rows_of(path)
    assert error.value.place == 2


def test_lines_are_counted_over_blocks(tmp_path: Path) -> None:
    lines = [f"{number}.25,{-number}e-3" for number in range(100_000)]
    path = tmp_path / "in.csv"
    path.write_text("\n".join(["b,a", *lines]))
    rows = rows_of(path)
    assert rows == [[float(f"{-number}e-3"), number + 0.25] for number in range(100_000)]
    lines[70_000] = "1,2,3"
    path.write_text("\n".join(["b,a", *lines]))
    with pytest.raises(RowError) as error:
        rows_of(path)
    assert error.value.place == 70_002


def by_csv(line: str) -> list[float]:
    (fields,) = csv.reader([line], strict=True)
    return list(map(float, fields))


def by_json(line: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    row = json.loads(line, parse_int=float, parse_constant=refuse)
    if isinstance(row, dict):
        row = [row[name] for name in NAMES] if len(row) == 2 else []
    if not isinstance(row, list) or any(type(number) is not float for number in row):
        raise ValueError(line)
    return row


# Lines that are nearly right, so that what is wrong hides between them.
NUMBER = st.sampled_from(["1", "-2.5", "3e2", "+4", ".5", "06", "", " 7", "nan", "x", "1]", "[2"])
CSV_LINE = st.lists(NUMBER, min_size=1, max_size=3).map(",".join)
JSON_LINE = st.one_of(
    CSV_LINE.map(lambda inside: f"[{inside}]"),
    CSV_LINE,
    CSV_LINE.map(lambda inside: f"[{inside}"),
    CSV_LINE.map(lambda inside: f"{inside}]"),
    st.tuples(NUMBER, NUMBER).map(lambda pair: f'{{"b":{pair[0]},"a":{pair[1]}}}'),
)


@given(
    st.one_of(
        st.tuples(st.just(".csv"), st.lists(CSV_LINE, min_size=1, max_size=6)),
        st.tuples(st.just(".jsonl"), st.lists(JSON_LINE, min_size=1, max_size=6)),
    )
)
@settings(max_examples=400, deadline=None)
def test_lines_are_read_as_python_reads_each(
    tmp_path_factory: pytest.TempPathFactory, text: tuple[str, list[str]]
) -> None:
    suffix, lines = text
    if suffix == ".csv":
        lines = ["a,b", *lines]
    expected, place = [], None
    for number, line in enumerate(lines, 1):
        if (suffix, number) == (".csv", 1):
            continue
        try:
            row = by_csv(line) if suffix == ".csv" else by_json(line)
            if len(row) != 2 or not all(map(math.isfinite, row)):
                raise ValueError(line)
        except (ValueError, KeyError, csv.Error):
            place = number
            break
        expected.append(row)
    path = tmp_path_factory.mktemp("text") / f"in{suffix}"
    path.write_text("\n".join(lines) + "\n")
    if place is None:
        np.testing.assert_array_equal(rows_of(path), expected)
    else:
        with pytest.raises(RowError) as error:
            rows_of(path)
        assert error.value.place == place
