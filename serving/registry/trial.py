"""Versions are tried in processes of their own: what hangs, dies or takes all memory hurts nobody.

A TensorFlow that has run an operation cannot be forked. So a process that never runs one, the fork
server, is forked before that, and forks a child for every trial.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import threading
from pathlib import Path
from typing import Self

import msgspec

from serving.errors import first_line
from serving.policy.artefact import ArtefactError, read
from serving.policy.tensorflow_import import import_tensorflow

# Of a trial, which takes a third of a second for a small policy.
CPU_SECONDS = 10
SECONDS = 60.0  # of the clock, on a machine that has other things to do
MEMORY_BYTES = 1024**3  # and four bytes for each of the version's files
MAX_REASON = 500  # characters


class TrialsEndedError(Exception):
    """The fork server is gone: this process can try nothing any more."""


class Trials:
    """Tries versions, one at a time, with limits on time and memory.

    To be made before the process runs TensorFlow or starts a thread. The fork server ends with
    the process, or with `close`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, other = socket.socketpair()
        self._server = os.fork()
        if self._server == 0:
            try:
                _serve(other)
            finally:
                os._exit(0)
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the fork server."""
        self._socket.close()
        os.waitpid(self._server, 0)

    def run(self, model_dir: Path) -> None:
        """Load a version in a child process, as a service would.

        Raises:
            ArtefactError: that fails, or takes more than the limits; the message says why.
            TrialsEndedError: the fork server is gone.
        """
        with self._lock:
            try:
                _send(self._socket, os.fsdecode(model_dir))
                reason = _receive(self._socket)
            except OSError:
                reason = None
        if reason is None:
            raise TrialsEndedError("the process that tries versions is gone")
        if reason:
            raise ArtefactError(reason)


def _send(sock: socket.socket, text: str) -> None:
    sock.sendall(msgspec.json.encode(text) + b"\n")


def _receive(sock: socket.socket) -> str | None:
    """The next message; None at the end."""
    line = b""
    while not line.endswith(b"\n"):
        data = sock.recv(65536)
        if not data:
            return None
        line += data
    return msgspec.json.decode(line, type=str)


def _serve(sock: socket.socket) -> None:
    """Try what is asked for until the other end is closed."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():  # what the other process does at a signal is its own
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # What the other process closes is closed: here nobody would serve it.
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    while (path := _receive(sock)) is not None:
        import_tensorflow()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                sock.close()
                # At most 3,000 bytes, which a pipe takes at once.
                os.write(writing, msgspec.json.encode(_try(Path(path))[:MAX_REASON]))
            finally:
                os._exit(0)
        os.close(writing)
        reason = _wait(child, reading, sock)
        os.close(reading)
        _send(sock, reason)


def _wait(child: int, reading: int, sock: socket.socket) -> str:
    """Why a child refuses its version, or what ended it; nothing if the version is good."""
    ready, _, _ = select.select([reading, sock.fileno()], [], [], SECONDS)
    told = os.read(reading, 65536) if reading in ready else b""
    if reading not in ready:  # its time is up, or nobody waits for it any more
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if told:
        return msgspec.json.decode(told, type=str)
    if not ready:
        return f"it cannot be loaded and tried within {SECONDS:g} seconds"
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return f"it cannot be loaded and tried within {CPU_SECONDS} seconds of processor time"
    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return f"the process that loaded and tried it ended with {name}"


def _try(model_dir: Path) -> str:
    """Load a version in this process, which is for nothing else; why that fails."""
    from serving.policy.savedmodel import Policy

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):  # TensorFlow's last words are no lines of our log
        os.dup2(nowhere, standard)
    try:
        _limit(sum(path.stat().st_size for path in model_dir.rglob("*")))
        Policy(model_dir, read(model_dir), "", 0, "")
    except ArtefactError as error:
        return str(error)
    except Exception as error:  # whatever it is, it is this version's
        return first_line(error)
    return ""


def _limit(size: int) -> None:
    """Limit this process, which loads files of `size` bytes."""
    # Where memory runs out, this process ends before any that serves.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: CPU_SECONDS}
    with contextlib.suppress(OSError):  # only Linux says how much there is already
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        used = pages * resource.getpagesize()
        limits[resource.RLIMIT_DATA] = used + MEMORY_BYTES + 4 * size
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))
