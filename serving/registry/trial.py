"""Tries versions in separate processes: one that hangs, crashes or exhausts memory does no harm.

A process in which TensorFlow has run an operation cannot be forked. So a fork server, which never
runs one, is forked before that, and forks a child for every trial.
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
from serving.policy.artefact import MAX_REASON, ArtefactError, read
from serving.policy.tensorflow_import import import_tensorflow

# Limits for a trial, which takes less than a second for a small policy.
CPU_SECONDS = 10
SECONDS = 60.0  # of wall-clock time, on a busy machine
MEMORY_BYTES = 1024**3  # plus four bytes for each byte of the version's files
MAX_OPEN_FILES = 2**20  # outside Linux the limit can be infinite


class TrialsEndedError(Exception):
    """The fork server is gone: this process can no longer try versions."""


class Trials:
    """Tries versions, one at a time, with limits on time and memory.

    Create it before the process runs TensorFlow or starts a thread. The fork server ends with the
    process, or with the `with` statement.
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
        self._socket.close()
        # If SIGCHLD is ignored, which a process can inherit, no child can be waited for.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._server, 0)

    def run(self, model_dir: Path) -> None:
        """Load a version in a child process, as a service would.

        Raises:
            ArtefactError: that fails or exceeds the limits; the message says why.
            OSError: no process can be started now.
            TrialsEndedError: the fork server is gone.
        """
        with self._lock:
            try:
                _send(self._socket, os.fspath(model_dir))
                reason = _receive(self._socket)
            except (EOFError, OSError) as error:
                raise TrialsEndedError("the process that tries versions is gone") from error
        if reason is None:
            raise OSError("no process can be started; is there a limit of processes?")
        if reason:
            raise ArtefactError(reason)


def _send(sock: socket.socket, message: str | None) -> None:
    sock.sendall(msgspec.json.encode(message) + b"\n")


def _receive(sock: socket.socket) -> str | None:
    """The next message.

    Raises:
        EOFError: the other end is closed.
    """
    line = b""
    while not line.endswith(b"\n"):
        data = sock.recv(65536)
        if not data:
            raise EOFError
        line += data
    return msgspec.json.decode(line, type=str | None)


def _serve(sock: socket.socket) -> None:
    """Try the versions that are requested, until the other end is closed."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():  # the parent's handlers must not run here
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Otherwise the parent's sockets stay open for as long as this process lives.
    os.closerange(3, sock.fileno())
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], MAX_OPEN_FILES)
    os.closerange(sock.fileno() + 1, most)
    while path := _receive(sock):
        import_tensorflow()
        _send(sock, _run(Path(path), sock))


def _run(model_dir: Path, sock: socket.socket) -> str | None:
    """Why a child refuses a version, "" if it is good; None if no child can be started."""
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return None
    if child == 0:
        try:
            sock.close()
            # At most 3,000 bytes, which fit into a pipe at once.
            os.write(writing, msgspec.json.encode(_try(model_dir)[:MAX_REASON]))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        return _wait(child, reading, sock)
    finally:
        os.close(reading)


def _wait(child: int, reading: int, sock: socket.socket) -> str:
    """Why a child refuses its version, or what ended the child; "" if the version is good."""
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
    hint = "is there too little memory, or a limit of processes?"
    return f"the process that loaded and tried it ended with {name}; {hint}"


def _try(model_dir: Path) -> str:
    """Load a version in this process, which does nothing else; return why that fails, or ""."""
    from serving.policy.savedmodel import Policy

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):  # keeps TensorFlow's messages out of our log
        os.dup2(nowhere, standard)
    try:
        _limit(sum(path.stat().st_size for path in model_dir.rglob("*")))
        Policy(model_dir, read(model_dir), "", 0, "")
    except ArtefactError as error:
        return str(error)
    except Exception as error:  # any error refuses this version
        return first_line(error)
    return ""


def _limit(size: int) -> None:
    """Limit this process, which loads files of `size` bytes."""
    # If memory runs out, this process is killed before any that serves.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: CPU_SECONDS}
    with contextlib.suppress(OSError):  # only Linux says how much is in use already
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        used = pages * resource.getpagesize()
        limits[resource.RLIMIT_DATA] = used + MEMORY_BYTES + 4 * size
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))
