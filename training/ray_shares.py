"""Shares of environments in Ray actors, which are restarted if they or their nodes die."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import click
import cloudpickle
import ray
from gymnasium.vector import VectorEnv
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from training.errors import StopRequestedError
from training.ray_probe import digest
from training.shares import (
    POLL_SECONDS,
    Function,
    Maker,
    WorkerError,
    answer,
    never,
    pickled,
    raise_first,
    slices,
)

MAX_DEATHS = 5  # of one share's actors in one call
LOST = (RayActorError, ObjectLostError)  # an actor, or its answer, which stays on its node

NOT_STORED = "and its environments cannot be stored for another to continue"

# What a new actor begins with when one has died: the environments as they were after the last call;
# as they were at first, which is enough if every call begins with a seeded reset; or an error.
Restart = Literal["last state", "first state", "never"]


class RayShares:
    """A share in each of several Ray actors; see `training.shares.Shares`."""

    def __init__(self, sizes: list[int], makers: list[Maker], restart: Restart) -> None:
        """Start the actors, spread over the nodes."""
        self.num_envs = sum(sizes)
        self._restart = restart
        self._code = digest("training")
        self._own = slices(sizes)
        self._makers: list[Maker | None] = list(makers)
        self._actors = [self._start(index) for index in range(len(sizes))]

    def call(
        self, function: Function, *arguments: Any, stop_requested: Callable[[], bool] = never
    ) -> list[Any]:
        """See `Shares`; a call whose actor dies is repeated in a new one.

        Raises:
            WorkerError: an environment has raised an error, or a share cannot be started again.
        """
        request = ray.put((function, arguments))
        answers: list[Any] = [None] * len(self._actors)
        makers = list(self._makers)
        deaths = [0] * len(self._actors)
        pending = {actor.call.remote(request): i for i, actor in enumerate(self._actors)}
        while pending:
            done, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
            if stop_requested():
                self.close()
                raise StopRequestedError
            for reference in done:
                i = pending.pop(reference)
                try:
                    answers[i], state = ray.get(reference)
                except LOST as error:
                    deaths[i] += 1
                    self._start_again(i, deaths[i], error)
                    pending[self._actors[i].call.remote(request)] = i
                except RayTaskError as error:
                    self.close()
                    click.echo(error, err=True)
                    raise WorkerError("an environment in a Ray actor has failed") from error
                else:
                    makers[i] = self._maker_after(i, state)
        self._makers = makers
        raise_first(answers)
        return answers

    def pickled(self) -> list[bytes]:
        """See `Shares`."""
        return self.call(pickled)

    def close(self) -> None:
        """See `Shares`."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self, index: int) -> Any:
        return _EnvironmentActor.remote(  # type: ignore[attr-defined]  # as Ray decorates it
            self._makers[index], self._own[index], self._restart == "last state", self._code
        )

    def _start_again(self, index: int, deaths: int, error: Exception) -> None:
        reason = str(error).splitlines()[0]
        if self._makers[index] is None or deaths == MAX_DEATHS:
            self.close()
            why = f"{deaths} times in one call" if deaths == MAX_DEATHS else NOT_STORED
            raise WorkerError(f"a Ray actor has ended {why}: {reason}") from error
        click.echo(
            f"a Ray actor has ended; its environments continue in another: {reason}", err=True
        )
        self._actors[index] = self._start(index)

    def _maker_after(self, index: int, state: bytes | None) -> Maker | None:
        if self._restart == "last state":
            assert state is not None
            return partial(cloudpickle.loads, state)
        return self._makers[index] if self._restart == "first state" else None


@ray.remote(scheduling_strategy="SPREAD")
class _EnvironmentActor:
    def __init__(self, make: Maker, own: slice, keep_state: bool, code: str) -> None:
        self._make, self._own, self._keep_state, self._code = make, own, keep_state, code
        self._env: VectorEnv | None = None

    def call(self, request: tuple[Function, tuple[Any, ...]]) -> tuple[Any, bytes | None]:
        """Call a function for the share; return its answer, and the environments after it."""
        if self._env is None:  # not in `__init__`, so that the call raises its errors
            # The node may have joined after the code of the others was checked.
            if digest("training") != self._code:
                raise RuntimeError("the node of this actor has other code of `training`")
            self._env = self._make()
        function, arguments = request
        answered = answer(function, self._env, self._own, arguments)
        return answered, cloudpickle.dumps(self._env) if self._keep_state else None
