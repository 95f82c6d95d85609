"""docs/operations.md is true: its settings, limits, alerts, files and commands are the code's."""

import re
from dataclasses import fields

import pytest
from gunicorn.config import Config

from serving.server.pool import MAX_CONNECTIONS
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, ROOT, run

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The cells of the table that begins with this line."""
    (table,) = re.findall(
        rf"^{re.escape(header)}\n\|[-|]+\|\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_every_setting_is_documented_as_it_is() -> None:
    expected = [
        [
            f"`--{setting.name.replace('_', '-')}`",
            f"`SERVING_{setting.name.upper()}`",
            "" if setting.default is None else f"`{setting.default}`",
            setting.metadata["help"].replace("<", r"\<"),
        ]
        for setting in fields(Settings)
    ]
    assert rows("| option | variable | default | what it is |") == expected


def test_every_alert_has_its_severity_and_what_to_do() -> None:
    rules = (ROOT / "monitoring" / "rules.yml").read_text()
    alerts = re.findall(r"alert: (\w+)\n.*?severity: (\w+)", rules, re.DOTALL)
    documented = rows("| alert | severity | what to do |")
    assert [(name.strip("`"), severity) for name, severity, _ in documented] == alerts
    assert all(len(text) > 20 for *_, text in documented)


def test_every_file_that_is_named_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT):
        assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"requirements/[\w.]+|monitoring/[\w./]+", DOCUMENT):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "command", re.findall(r"^    python -m serving (.*)$", DOCUMENT, re.MULTILINE)
)
def test_every_command_has_the_options_it_is_shown_with(command: str) -> None:
    name, *arguments = command.split()
    options = {argument for argument in arguments if argument.startswith("--")}
    shown = run("serving", name, "--help").stdout
    assert options <= set(re.findall(r"--[\w-]+", shown))


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("SERVING_MAX_IN_FLIGHT", "0", "--max-in-flight"),
        ("SERVING_REQUEST_TIMEOUT", "0", "--request-timeout"),
        ("SERVING_CLIENT_TIMEOUT", "-1", "--client-timeout"),
        ("SERVING_LOG_FORMAT", "xml", "--log-format"),
        ("SERVING_LOG_REQUESTS", "some", "--log-requests"),
        ("SERVING_PIN", "newest", "--pin"),
        ("SERVING_NAME", "../x", "--name"),
        ("SERVING_THREADS", "many", "--threads"),
        ("SERVING_MIN_RETURN", "high", "--min-return"),
    ],
)
def test_a_wrong_variable_ends_the_start_in_one_line(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, variable, value)
    finished = run("serving", "run", "--models", "tests", "--port", "0")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert told in finished.stderr


def test_an_option_stands_above_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SERVING_WORKERS", "0")
    finished = run("serving", "run", "--models", "tests", "--workers", "1", "--port", "99999")
    assert "--port" in finished.stderr  # the next mistake


def test_the_limits_that_are_no_settings_are_documented() -> None:
    limits = dict(rows("| limit | answer |"))
    config = Config()
    line, field = config.limit_request_line, config.limit_request_field_size
    assert f"{line:,} bytes of a request line, {field:,} of a header with its line end" in limits
    assert f"{MAX_CONNECTIONS} connections of a worker" in limits
