"""The watchdog counts the time that its process had."""

import os
import signal
import subprocess
import sys
import time

from tests.conftest import ROOT, pause

WATCH = """
import sys
from serving.server.watchdog import Watchdog

class Watched:
    iterations = 0

    def stop(self, stuck):
        print(*stuck, flush=True)

    def abandon_all(self):
        pass

watchdog = Watchdog(Watched(), request_timeout=1.5, graceful_timeout=0.0)
watchdog.start()
print("watching", flush=True)
for line in sys.stdin:
    method, request = line.split()
    getattr(watchdog, method)(request)
"""


def test_a_pause_is_not_counted_against_a_request_however_short_its_timeout() -> None:
    command = [sys.executable, "-c", WATCH]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        process.stdin.write("begin first\n")
        time.sleep(0.1)
        pause(process.pid)
        time.sleep(4)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.1)
        process.stdin.write("end first\nbegin second\n")
        started = time.monotonic()
        assert process.stdout.readline() == "second\n"
        assert time.monotonic() - started >= 1.5
        assert process.wait(60) == 1
