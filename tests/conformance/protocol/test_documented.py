"""docs/protocols.md says which servers were tested, and what is known of them."""

import re

import pytest

from tests.conformance.protocol.differences import DIFFERENCES
from tests.conftest import ROOT

DOCUMENTED = " ".join((ROOT / "docs" / "protocols.md").read_text().split())


@pytest.mark.parametrize("server", DIFFERENCES)
def test_every_difference_is_documented(server: str) -> None:
    for difference in DIFFERENCES[server]:
        assert difference in DOCUMENTED


@pytest.mark.parametrize(
    ("server", "package"),
    [
        ("triton", "nvidia-pytriton"),
        ("mlserver", "mlserver"),
        ("kserve", "kserve"),
        ("perf-analyzer", "tritonclient"),
    ],
)
def test_the_versions_are_those_that_are_tested(server: str, package: str) -> None:
    locked = (ROOT / "requirements" / f"peers-{server}.txt").read_text()
    (version,) = re.findall(rf"^{package}==(\S+)", locked, re.MULTILINE)
    assert version in DOCUMENTED
