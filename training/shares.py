"""Environments split into shares: one in this process, or several in parallel processes."""

import contextlib
import signal
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import cloudpickle
import numpy as np
from gymnasium.vector import VectorEnv

from training.errors import StopRequestedError, TrainingError
from training.processes import CONTEXT, end_with_parent, without_signals

POLL_SECONDS = 0.1  # for an answer, and whether to stop
SECONDS_TO_CLOSE = 1

# Called with a share, its slice of all environments, further arguments, and whether to stop.
Function = Callable[..., Any]
Maker = Callable[[], VectorEnv]


def never() -> bool:
    """A `stop_requested` for calls that nobody can stop."""
    return False


class WorkerError(TrainingError):
    """What steps environments has ended; why may stand on standard error."""

    exit_status = 1


class Shares(Protocol):
    """Environments in shares, each of which is a vector environment.

    Attributes:
        num_envs: of all shares together.
    """

    num_envs: int

    def call(
        self, function: Function, *arguments: Any, stop_requested: Callable[[], bool] = never
    ) -> list[Any]:
        """Call a function for each share; return its answers, in the order of the environments.

        Raises:
            StopRequestedError: a stop was requested. The environments can no longer be used.
            WorkerError: a process has ended.
        """

    def pickled(self) -> list[bytes]:
        """The environments of each share as they stand; unpickling makes them again."""

    def close(self) -> None:
        """Close the environments."""


class Workers(Protocol):
    """Processes or actors that can step environments for this process."""

    @property
    def count(self) -> int:
        """How many shares it takes at most."""

    def start(self, sizes: list[int], makers: list[Maker], *, one_episode: bool) -> Shares:
        """Make the shares of environments, each in a worker.

        Args:
            sizes: how many environments each share has.
            makers: make them, in the workers; must be picklable.
            one_episode: whether every call begins with a reset to a seed.
        """


@contextlib.contextmanager
def not_exiting() -> Iterator[None]:
    """Raise `WorkerError` where an environment ends the program, whose status may be 0."""
    try:
        yield
    except SystemExit as error:
        raise WorkerError(f"an environment ended the program: {error!r}") from error


class OneShare:
    """All environments in one share, in this process."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.num_envs = env.num_envs

    def call(
        self, function: Function, *arguments: Any, stop_requested: Callable[[], bool] = never
    ) -> list[Any]:
        """See `Shares`."""
        with not_exiting():
            return [function(self._env, slice(0, self.num_envs), *arguments, stop_requested)]

    def pickled(self) -> list[bytes]:
        """See `Shares`."""
        return self.call(pickled)

    def close(self) -> None:
        """See `Shares`."""
        self._env.close()


class ProcessShares:
    """A share in each of several processes."""

    def __init__(self, sizes: list[int], makers: list[Maker]) -> None:
        """Start the processes; see `Workers.start`."""
        self.num_envs = sum(sizes)
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        # At exit, this runs before multiprocessing would wait for all processes.
        self._end = weakref.finalize(self, _end, self._connections, self._processes)
        with without_signals(signal.SIGINT, signal.SIGTERM):
            for own, make in zip(slices(sizes), makers, strict=True):
                connection, of_worker = CONTEXT.Pipe()
                arguments = of_worker, make, own
                process = CONTEXT.Process(target=_work, args=arguments)
                process.start()
                of_worker.close()  # so that the process's end closes the connection
                self._connections.append(connection)
                self._processes.append(process)

    def call(
        self, function: Function, *arguments: Any, stop_requested: Callable[[], bool] = never
    ) -> list[Any]:
        """See `Shares`; raises the first `TrainingError` that a process has raised."""
        try:
            for connection in self._connections:
                connection.send((function, arguments))
            answers = [self._answer(connection, stop_requested) for connection in self._connections]
        except (EOFError, ConnectionError) as error:
            self.close()
            raise WorkerError("a process that steps environments has ended") from error
        raise_first(answers)
        return answers

    def pickled(self) -> list[bytes]:
        """See `Shares`."""
        return self.call(pickled)

    def close(self) -> None:
        """See `Shares`."""
        self._end()

    def _answer(self, connection: Connection, stop_requested: Callable[[], bool]) -> Any:
        while not connection.poll(POLL_SECONDS):
            if stop_requested():
                self.close()
                raise StopRequestedError
        return connection.recv()


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of this machine."""

    count: int

    def start(self, sizes: list[int], makers: list[Maker], *, one_episode: bool) -> ProcessShares:
        """See `Workers`."""
        del one_episode  # not needed: a process that ends is not started again
        return ProcessShares(sizes, makers)


def slices(sizes: list[int]) -> list[slice]:
    """The slice of each share's environments among all."""
    return [slice(start, end) for start, end in pairwise(np.cumsum([0, *sizes]).tolist())]


def answer(function: Function, env: VectorEnv, own: slice, arguments: tuple[Any, ...]) -> Any:
    """Call a function for a share, in its process; return the answer or its `TrainingError`."""
    try:
        with not_exiting():
            return function(env, own, *arguments, never)
    except TrainingError as error:
        return error


def raise_first(answers: list[Any]) -> None:
    """Raise the first `TrainingError` among answers."""
    for one in answers:
        if isinstance(one, TrainingError):
            raise one


def pickled(env: VectorEnv, _own: slice, _stop_requested: Callable[[], bool]) -> bytes:
    """A share's environments in their present state."""
    data: bytes = cloudpickle.dumps(env)
    return data


def _end(connections: list[Connection], processes: list[BaseProcess]) -> None:
    for connection in connections:
        connection.close()
    wait([process.sentinel for process in processes], SECONDS_TO_CLOSE)
    for process in processes:
        process.kill()  # if it has not ended by itself
        process.join()


def _work(connection: Connection, make: Maker, own: slice) -> None:
    """Answer calls for a share until the connection is closed."""
    end_with_parent()
    with contextlib.closing(make()) as env, contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, arguments = connection.recv()
            connection.send(answer(function, env, own, arguments))
