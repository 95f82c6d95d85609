"""Helper processes, which end with the command, and the signals that end the command."""

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

# TensorFlow does not survive a fork.
CONTEXT = multiprocessing.get_context("spawn")


def note_signals() -> list[int]:
    """Record SIGTERM and the first Ctrl-C in a list; a second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return received


@contextmanager
def without_signals(*signals: signal.Signals) -> Iterator[None]:
    """Block signals, also in the processes that are started meanwhile.

    A terminal sends Ctrl-C (SIGINT) to all of them, but the command is to end the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, for whatever reason."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def drawing_process() -> Iterator[Executor]:
    """A process for `training.pictures`, which imports all that it needs right away.

    It does so while the command imports TensorFlow and compiles, which take one core.
    """
    executor = ProcessPoolExecutor(1, CONTEXT, initializer=end_with_parent)
    try:
        with without_signals(signal.SIGINT):
            executor.submit(_import_what_draws)
        yield executor
    finally:
        # Wait: otherwise the interpreter's exit writes to a pipe that the executor is closing.
        executor.shutdown(cancel_futures=True)


def _import_what_draws() -> None:
    for module in ("matplotlib.figure", "training.pictures"):
        importlib.import_module(module)
