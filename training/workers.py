"""Environments shared out among processes and stepped as one vector environment."""

import contextlib
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle
import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from training.errors import TrainingError
from training.processes import CONTEXT, end_with_parent, without_signals
from training.types import BoolArray, DoubleArray, IntArray

SECONDS_TO_POLL = 0.001  # longer than most policies take between two steps
SECONDS_TO_CLOSE = 1


class WorkerError(TrainingError):
    """A process that steps environments has ended; why stands on standard error."""

    exit_status = 1


class WorkersVectorEnv(VectorEnv[Any, Any, Any]):
    """Vector environments as one: the first in this process, each other in one of its own.

    It answers as `gymnasium.vector.SyncVectorEnv` of all environments would, but with empty infos.
    A pickle of it holds the environments as they stand; loading that starts new processes.
    """

    def __init__(
        self,
        sizes: list[int],
        makers: list[Callable[[], VectorEnv]],
        observation_space: Space[Any],
        action_space: Space[Any],
    ) -> None:
        """Start the processes, and make the environments.

        Args:
            sizes: how many environments each process has.
            makers: what makes them there; can be pickled.
            observation_space: of one environment.
            action_space: of one environment.
        """
        self.num_envs = sum(sizes)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self._sizes = sizes
        self._bounds = np.cumsum(sizes)[:-1]
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        # Before multiprocessing waits at the exit of the program for all processes.
        self._end = weakref.finalize(self, _end, self._connections, self._processes)
        with without_signals(signal.SIGINT, signal.SIGTERM):
            for make in makers[1:]:
                connection, of_worker = CONTEXT.Pipe()
                process = CONTEXT.Process(target=_work, args=(of_worker, make))
                process.start()
                of_worker.close()  # so that the process's end closes the connection
                self._connections.append(connection)
                self._processes.append(process)
        self._own = makers[0]()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all; environment `i` gets `seed + i`, whichever process it is in."""
        seeds = [None if seed is None else seed + first for first in [0, *self._bounds.tolist()]]
        return np.concatenate(self._ask(_reset, [(one, options) for one in seeds])), {}

    def step(
        self, actions: IntArray
    ) -> tuple[Any, DoubleArray, BoolArray, BoolArray, dict[str, Any]]:
        """Step all, those of every process at the same time."""
        answers = self._ask(_step, [(part,) for part in np.split(actions, self._bounds)])
        observations, rewards, terminated, truncated = map(
            np.concatenate, zip(*answers, strict=True)
        )
        return observations, rewards, terminated, truncated, {}

    def close_extras(self, **_: Any) -> None:
        """Close the environments and end the processes."""
        self._own.close()
        self._end()

    def __reduce__(self) -> tuple[Any, ...]:
        """Take the environments as they stand out of the processes."""
        pickled = self._ask(cloudpickle.dumps, [()] * len(self._sizes))
        makers = [partial(cloudpickle.loads, share) for share in pickled]
        spaces = self.single_observation_space, self.single_action_space
        return WorkersVectorEnv, (self._sizes, makers, *spaces)

    def _ask(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Call a function with the environments of every process, and arguments of its own.

        Raises:
            WorkerError: a process has ended.
        """
        own, *others = arguments
        try:
            for connection, of_other in zip(self._connections, others, strict=True):
                connection.send((function, of_other))
            answer = function(self._own, *own)
            return [answer, *map(_receive, self._connections)]
        except (EOFError, ConnectionError) as error:
            self.close()
            raise WorkerError("a process that steps environments has ended") from error


def _end(connections: list[Connection], processes: list[BaseProcess]) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        process.join(SECONDS_TO_CLOSE)
        process.kill()  # if it has not ended by itself
        process.join()


def _work(connection: Connection, make: Callable[[], VectorEnv]) -> None:
    """Answer what is asked of the environments until the connection is closed."""
    end_with_parent()
    with contextlib.closing(make()) as env, contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, arguments = _receive(connection)
            connection.send(function(env, *arguments))


def _receive(connection: Connection) -> Any:
    """Poll for a while, since waking from a wait takes longer than many environments' steps."""
    end = time.perf_counter() + SECONDS_TO_POLL
    while not connection.poll() and time.perf_counter() < end:
        os.sched_yield()
    return connection.recv()


def _reset(env: VectorEnv, seed: int | None, options: dict[str, Any] | None) -> Any:
    return env.reset(seed=seed, options=options)[0]


def _step(env: VectorEnv, actions: IntArray) -> tuple[Any, ...]:
    return env.step(actions)[:4]
