"""What a run shows of itself, on a real pseudo-terminal and in a log."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import time
from typing import NamedTuple

import pytest

from tests.conftest import ENVIRONMENT, ROOT
from tests.test_architecture import loaded_by

# What starts each program below; `update` stands for one of a trainer, which needs TensorFlow.
START = """
import fcntl, struct, sys, termios, time
from types import SimpleNamespace
import click
from training import reporting
from training.reporting import progress_display

def update(display, env_steps, running_return=12.4, sampled=None, greedy=None):
    display.update(
        SimpleNamespace(
            env_steps=env_steps,
            running_return=running_return,
            sampled=sampled and SimpleNamespace(mean=sampled),
            greedy=greedy and SimpleNamespace(mean=greedy),
        ),
        50_000,
    )
"""
PHASES = ["importing TensorFlow", "compiling", "evaluating", "testing robustness", "exporting"]
RUN = """
with progress_display() as display:
    display.phase("importing TensorFlow")
    display.phase("compiling")
    for update_number in range(1, 9):
        time.sleep(0.04)
        update(display, 3000 * update_number, running_return=50 * update_number)
        if update_number % 4 == 0:
            display.phase("evaluating")
    display.phase("testing robustness")
    display.phase("exporting")
    display.finish()
print("solved")
"""


class Screen:
    """As much of a terminal as the line needs.

    Attributes:
        rows: what is on the screen.
        frames: each content of a row that was replaced or left.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.frames: list[str] = []
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for control, character in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])|(.)", text):
            if control in ("\r", "\n"):
                self.frames.append(self.rows[self.row])
                self.column = 0
                self.row += control == "\n"
            elif control == "\x1b[2K":
                self.rows[self.row] = ""
            elif control == "\x1b[1A":
                self.row -= 1
            elif control:  # colours and the cursor
                assert control[-1] in "mhl", control
            else:
                if self.column == self.columns:  # it wraps
                    self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
                row = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
                self.column += 1
            self.rows += [""] * (self.row + 1 - len(self.rows))


class Seen(NamedTuple):
    output: str
    status: int
    screen: Screen
    seconds_to_first: float

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.screen.rows if row]

    @property
    def bars(self) -> list[str]:
        """Each line that was drawn, without the spinner."""
        return [frame[2:] for frame in self.screen.frames if re.search(r"\d%", frame)]


def on_terminal(program: str, columns: int = 80, **variables: str) -> Seen:
    """Run it with all its streams on a pseudo-terminal."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "FORCE_COLOR", "LC_ALL")
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in unset}
    environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | variables
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", START + program],
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output, seconds_to_first = b"", 0.0
    try:
        while part := os.read(ours, 65536):
            seconds_to_first = seconds_to_first or time.perf_counter() - started
            output += part
    except OSError:  # Linux says so that the other side is closed
        pass
    os.close(ours)
    screen = Screen(columns)
    screen.feed(output.decode())
    return Seen(output.decode(), process.wait(), screen, seconds_to_first)


def in_log(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + program],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def test_something_is_seen_within_half_a_second() -> None:
    program = "with progress_display() as display: display.phase('importing')"
    # More than once, because other tests use this machine too.
    assert any(on_terminal(program).seconds_to_first < 0.5 for _ in range(10))


def test_it_moves_while_the_program_does_nothing() -> None:
    seen = on_terminal(
        "with progress_display() as display: display.phase('waiting'); time.sleep(1)"
    )
    waiting = [frame for frame in seen.screen.frames if "waiting" in frame]
    assert len({frame[0] for frame in waiting}) >= 5


@pytest.mark.parametrize("columns", [80, 40])
def test_every_phase_is_seen_and_the_bar_ends_at_100_percent(columns: int) -> None:
    seen = on_terminal(RUN, columns)
    assert seen.status == 0
    names = [re.split(r" +[━─]", bar)[0].rstrip() for bar in seen.bars]
    in_order = list(dict.fromkeys(names))
    assert [name for name in in_order if name in PHASES] == PHASES
    last, result = seen.rows  # nothing else is left on the screen
    assert result == "solved"
    assert re.fullmatch(r". done +━+ 100% return 400 .*k( steps)?/s", last)
    assert all("100%" not in bar for bar in seen.bars if "done" not in bar)


@pytest.mark.parametrize("columns", [200, 80, 40, 20, 5])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    seen = on_terminal(RUN, columns)
    assert max(len(frame) for frame in seen.screen.frames) <= min(columns, 100)
    assert len(seen.rows) == 2 + (columns < len("solved"))  # so none has wrapped


def test_forty_columns_show_bar_return_and_speed() -> None:
    seen = on_terminal(RUN, 40)
    assert any(re.fullmatch(r"training +━+─+ +\d+% return \d+ \d+k/s", bar) for bar in seen.bars)


def test_the_line_follows_the_size_of_the_terminal() -> None:
    seen = on_terminal("""
with progress_display() as display:
    display.phase("wide")
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    display.phase("narrow")
""")
    assert {len(bar) > 40 for bar in seen.bars if "wide" in bar} == {True}
    assert {len(bar) > 40 for bar in seen.bars if "narrow" in bar} == {False}


@pytest.mark.parametrize("ending", ["", "raise SystemExit", "raise KeyboardInterrupt"])
def test_a_run_that_stops_or_fails_leaves_the_bar_where_it_was(ending: str) -> None:
    seen = on_terminal(f"""
with progress_display() as display:
    update(display, 10_000)
    {ending}
""")
    assert re.fullmatch(r". training +━+─+  20% return 12", seen.rows[0])
    assert seen.output.count("\x1b[?25h") == 1  # the cursor is back


def test_a_mistake_before_the_training_stands_alone() -> None:
    seen = on_terminal("""
with progress_display() as display:
    display.phase("importing Gymnasium")
    time.sleep(0.2)
sys.stderr.write("Error: no such environment\\n")
""")
    assert seen.rows == ["Error: no such environment"]


def test_what_others_print_stands_in_lines_of_its_own() -> None:
    path = "runs/" + "long-" * 12 + "1"
    seen = on_terminal(
        f"""
with progress_display() as display:
    click.echo("training in {path}", err=True)
    time.sleep(0.2)
    print("of an environment")
    sys.stderr.write("two lines\\nat once\\n")
    sys.stderr.write("unfinished [bold] :smile:")
    update(display, 10_000)
print("result")
""",
        columns=40,
    )
    *printed, bar, result = seen.rows
    line = f"training in {path}"
    wrapped = [line[start : start + 40].rstrip() for start in range(0, len(line), 40)]
    assert printed == [
        *wrapped,
        "of an environment",
        "two lines",
        "at once",
        "unfinished [bold] :smile:",
    ]
    assert "20%" in bar
    assert result == "result"
    assert line in seen.output  # in one piece, to be copied


def test_standard_output_that_is_not_the_terminal_is_left_alone() -> None:
    seen = on_terminal("""
import os
reader, writer = os.pipe()
os.set_blocking(reader, False)
os.dup2(writer, 1)
with progress_display() as display:
    print("a result", flush=True)
    display.finish()
sys.stderr.write(f"{os.read(reader, 100)}\\n")
""")
    assert seen.rows[1:] == [r"b'a result\n'"]


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}])
def test_a_terminal_without_utf_8_gets_ascii(variables: dict[str, str]) -> None:
    seen = on_terminal(RUN, 80, **variables)
    assert seen.output.isascii()
    assert re.match(r". done +#+ 100%", seen.rows[0])


def test_no_color() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(on_terminal(RUN).output)
    assert not colour.search(on_terminal(RUN, NO_COLOR="1").output)


def test_a_dumb_terminal_gets_plain_lines() -> None:
    seen = on_terminal("with progress_display() as d: update(d, 100, sampled=1.0)", TERM="dumb")
    assert re.fullmatch(r" +\d\.\d s, 100 steps, return 12.4, sampled 1.0\r\n", seen.output)


def test_a_clock_that_stands_still() -> None:
    program = """
time.perf_counter = time.monotonic = time.time = lambda: 7.0
with progress_display() as display:
    update(display, 10_000, sampled=1.0)
    update(display, 20_000, sampled=2.0)
"""
    seen = on_terminal(program)
    assert (seen.status, len(seen.rows)) == (0, 1)
    assert re.fullmatch(r". training +━+─+  40% return 12", seen.rows[0])
    assert in_log(program).stderr.splitlines() == [
        "   0.0 s, 10000 steps, return 12.4, sampled 1.0",
        "   0.0 s, 20000 steps, return 12.4, sampled 2.0",
    ]


def test_a_log_has_evaluations_and_a_line_every_few_seconds() -> None:
    finished = in_log("""
now = 0.0
time.perf_counter = lambda: now
with progress_display() as display:
    for now, steps, evaluations in [
        (1.0, 1000, ()),
        (2.0, 2000, (95.0,)),
        (4.9, 3000, ()),
        (5.0, 4000, ()),
        (6.0, 5000, (120.0, 200.0)),
    ]:
        display.phase("evaluating")
        update(display, steps, 12.4, *evaluations)
    display.phase("exporting")
    display.finish()
assert "rich" not in sys.modules
""")
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "   2.0 s, 2000 steps, 1000 steps/s, return 12.4, sampled 95.0",
        "   5.0 s, 4000 steps, 750 steps/s, return 12.4",
        "   6.0 s, 5000 steps, 800 steps/s, return 12.4, sampled 120.0, greedy 200.0",
    ]


def test_a_log_has_a_line_for_a_phase_that_lasts() -> None:
    finished = in_log("""
reporting.SECONDS_TO_A_LINE_OF_A_PHASE = 0.3
with progress_display() as display:
    display.phase("importing TensorFlow")
    time.sleep(0.6)
    display.phase("compiling")
    update(display, 1000)
    time.sleep(0.6)
    display.phase("testing robustness")
    display.phase("exporting")
    display.finish()
    time.sleep(0.6)
""")
    assert re.fullmatch(r"   \d\.\d s, importing TensorFlow\n", finished.stderr)


def test_showing_needs_no_slow_imports() -> None:
    assert not {"tensorflow", "gymnasium", "numpy", "rich"} & loaded_by("training.reporting")
