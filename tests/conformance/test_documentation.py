"""The table of servers in docs/protocols.md, and the expected differences, against the suite."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import urllib3

from tests.conformance.protocol.differences import DIFFERENCES, Case, case_of
from tests.conformance.servers import PEERS, running_peer
from tests.conftest import ROOT, run

TFSERVING = "test_tfserving"
PACKAGES = {"triton": "nvidia-pytriton", "mlserver": "mlserver", "kserve": "kserve"}
LABELS = {"triton": "[Triton]", "mlserver": "[MLServer]", "kserve": "[KServe's Python server]"}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """All cases of the protocols, of all servers."""
    collected = run(
        *("pytest", "tests/conformance/protocol", "--collect-only", "--quiet"),
        *("-m", "peers or not peers", "-p", "no:cacheprovider"),
    )
    assert collected.returncode == 0, collected.stdout + collected.stderr
    return [case_of(line) for line in collected.stdout.splitlines() if "::" in line]


def documented() -> list[list[str]]:
    """The cells of every row of the table."""
    section = (ROOT / "docs" / "protocols.md").read_text().split("## Conformance tests")[1]
    rows = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def result(cases: list[Case]) -> list[str]:
    """The last two cells of a row: cases passed, and the differences with numbers of cases."""
    found = Counter(name for case in cases for name in case.differences())
    passed = sum(not case.differences() for case in cases)
    differences = "; ".join(f"{name} ({number})" for name, number in found.items())
    return [f"{passed} of {len(cases)}", differences]


def test_the_table_has_the_results_of_the_suite(cases: list[Case]) -> None:
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        tfserving = TFSERVING in case.names
        groups["TensorFlow Serving" if tfserving else case.server].append(case)
    expected = [result(groups[name]) for name in ("ours", "TensorFlow Serving", *PEERS)]
    assert [row[4:] for row in documented()] == expected


def test_every_expected_difference_names_cases_that_exist(cases: list[Case]) -> None:
    for server, differences in DIFFERENCES.items():
        existing = {name for case in cases if case.server == server for name in case.names}
        for difference, names in differences.items():
            assert set(names) <= existing, (server, difference)


def test_each_case_finds_one_difference(cases: list[Case]) -> None:
    assert all(len(case.differences()) <= 1 for case in cases)


@pytest.mark.parametrize("server", PEERS)
def test_the_table_has_the_versions_of_the_lock_files(server: str) -> None:
    package = PACKAGES[server]
    locked = (ROOT / "requirements" / f"peers-{server}.txt").read_text()
    version = re.search(rf"^{package}==(\S+)", locked, re.MULTILINE)
    assert version is not None
    (row,) = (row for row in documented() if row[0].startswith(LABELS[server]))
    assert row[1] == f"{package} {version[1]}"


@pytest.mark.peers
def test_the_package_has_the_documented_triton(tmp_path: Path) -> None:
    with running_peer("triton", tmp_path) as url:
        version = urllib3.request("GET", f"{url}/v2").json()["version"]
    (row,) = (row for row in documented() if row[0].startswith(LABELS["triton"]))
    assert f"({version.removesuffix('.0')}, Python backend)" in row[0]
