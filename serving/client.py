"""A Python client of the service. It needs neither TensorFlow nor Flask."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt
import urllib3
from msgspec import UNSET

from serving.schemas import (
    MAX_SEED,
    ActResponse,
    FeedbackRequest,
    FeedbackResponse,
    Health,
    ModelsReport,
    ModelVersion,
    Problem,
    VersionReport,
)


class ServiceError(Exception):
    """The service cannot be reached, or it answered with an error."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status  # HTTP status; None if there was no response


Answer = TypeVar("Answer")

# POST /act is idempotent, so a retry is safe.
_RETRIES = urllib3.Retry(
    3, backoff_factor=0.1, status_forcelist=[503], allowed_methods=None, raise_on_status=False
)
_NO_RETRY = urllib3.Retry(0)


class _Actions(msgspec.Struct):
    start: Annotated[int, msgspec.Meta(ge=-MAX_SEED, le=MAX_SEED)] = 0


class _Card(msgspec.Struct):
    actions: _Actions


class _Served(msgspec.Struct):
    version: int | None
    policy: _Card | None
    versions: list[VersionReport] = []

    def has_actions_of(self, model: ModelVersion) -> bool:
        """Whether the served version's policy card also describes the actions of `model`."""
        if self.version == model.version:
            return True
        # A canary that answers episodes has the same actions as the served version.
        return any(
            (one.version, one.digest) == (model.version, model.digest) and one.share > 0
            for one in self.versions
        )


class _WithCard(msgspec.Struct):
    policy: msgspec.Raw


@dataclass
class PolicyClient:
    """A client with persistent connections; leaving its `with` block closes them.

    Raises:
        ServiceError: the key is not valid in an HTTP header. Methods raise it if a request fails.
    """

    url: str  # of the service, such as `http://127.0.0.1:8000`
    timeout: float = 10.0  # seconds to connect, and between bytes, before an attempt fails
    api_key: str | None = field(default=None, repr=False)  # if the service requires one

    def __post_init__(self) -> None:
        headers = {"Content-Type": "application/json"}
        if self.api_key is not None:
            if not re.fullmatch(r"[\x21-\x7e]+", self.api_key):
                raise ServiceError("an API key has only visible ASCII characters")
            headers["Authorization"] = f"Bearer {self.api_key}"
        self._pool, self._process = urllib3.PoolManager(headers=headers), os.getpid()
        self._starts: dict[ModelVersion, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def act(
        self,
        observations: np.ndarray | Sequence[np.ndarray | Sequence[float] | Mapping[str, float]],
        *,
        deterministic: bool = False,
        seed: int | None = None,
        model: str | None = None,
        episode: str | None = None,
        step: int | None = None,
    ) -> ActResponse:
        """Get actions and policy outputs for a batch of observations.

        Args:
            observations: `[B, O]`; a row is a list of numbers in order or a mapping from names.
            deterministic: take the most probable action instead of sampling.
            seed: replays the response that has this seed.
            model: name of a model; by default the default model of the service.
            episode: id of the rows' episode, for the decision log and for a canary.
            step: index of the first row in its episode.
        """
        body: dict[str, Any] = {
            "observations": observations,
            "deterministic": deterministic,
            "seed": seed,
        }
        if episode is not None:
            body["episode"] = episode
        if step is not None:
            body["step"] = step
        encoded = msgspec.json.encode(body, enc_hook=_to_builtin)
        path = "/act" if model is None else f"{_path_of(model)}/act"
        return self._request(path, ActResponse, encoded)

    def feedback(
        self,
        *,
        episode: str | None = None,
        request: str | None = None,
        rewards: Sequence[float] | None = None,
        episode_return: float | None = None,
        step: int | None = None,
        ended: bool | None = None,
    ) -> FeedbackResponse:
        """Have the service record the outcome of an episode or a request in its decision log.

        Args:
            episode: either this or `request`.
            request: the `X-Request-ID` of an answer to one row.
            rewards: one per step, from `step` on; either these or `episode_return`.
            episode_return: the sum of all rewards of the episode, or the reward of the request.
            step: index of the first reward in its episode; by default 0, or for a `request` the one
                that it was asked with.
            ended: whether the episode has ended; by default true for feedback by `episode`.
        """
        given = FeedbackRequest(
            episode=UNSET if episode is None else episode,
            request=UNSET if request is None else request,
            rewards=UNSET if rewards is None else [float(reward) for reward in rewards],
            return_=UNSET if episode_return is None else float(episode_return),
            step=UNSET if step is None else step,
            ended=UNSET if ended is None else ended,
        )
        encoded = msgspec.json.encode(given, enc_hook=_to_builtin)
        return self._request("/feedback", FeedbackResponse, encoded)

    def environment_actions(self, response: ActResponse) -> npt.NDArray[np.int64]:
        """The actions of an answer in the environment's numbering, which may not start at 0.

        The first answer of a version costs a request for its policy card, which is repeated for up
        to `timeout` seconds while the service is replacing the version.

        Args:
            response: from `act`, for any model.

        Returns:
            `[B]`, for the environment's `step`.
        """
        model = response.model
        if model not in self._starts:
            self._starts[model] = self._start(model)
        return np.asarray(response.actions, np.int64) + self._starts[model]

    def policy_card(self, model: str | None = None) -> dict[str, Any]:
        """Get the policy card of a model, or of the default one.

        Raises:
            ServiceError: no version of the model is served.
        """
        name = self.models().models[0].name if model is None else model
        served = self._request(_path_of(name), _WithCard)
        # Not msgspec, which has no numbers beyond 64 bits.
        try:
            card: dict[str, Any] | None = json.loads(bytes(served.policy))
        except (ValueError, RecursionError) as error:
            raise ServiceError(f"{self.url}: no policy card: {error}", 200) from error
        if card is None:
            raise ServiceError(f"{self.url} serves no version of {name} yet")
        return card

    def models(self) -> ModelsReport:
        """List every model with its versions, which one is served, and why."""
        return self._request("/models", ModelsReport)

    def wait_until_ready(self, seconds: float) -> None:
        """Return as soon as the service is ready.

        Raises:
            ServiceError: it was not ready within so many seconds; says why.
        """
        deadline = time.monotonic() + seconds
        while True:
            # Of one attempt; urllib3 does not accept 0.
            timeout = min(self.timeout, max(0.1, deadline - time.monotonic()))
            try:
                self._request("/health/ready", Health, retries=_NO_RETRY, timeout=timeout)
                return
            except ServiceError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.1)

    def _start(self, model: ModelVersion) -> int:
        """The environment's number for the service's action 0."""
        deadline = time.monotonic() + self.timeout
        while True:
            served = self._request(_path_of(model.name), _Served)
            if served.policy is not None and served.has_actions_of(model):
                return served.policy.actions.start
            # Workers follow a change of the version one after another.
            if time.monotonic() >= deadline:
                raise ServiceError(
                    f"{self.url} answered with version {model.version} of {model.name}, and serves"
                    f" the policy card of version {served.version}"
                )
            time.sleep(0.1)

    def _request(
        self,
        path: str,
        answer: type[Answer],
        body: bytes | None = None,
        retries: urllib3.Retry = _RETRIES,
        timeout: float | None = None,
    ) -> Answer:
        method, url = "GET" if body is None else "POST", self.url.rstrip("/") + path
        if self._process != os.getpid():
            # After a fork: on shared sockets, each process could read the other's answers.
            self._pool = urllib3.PoolManager(headers=self._pool.headers)
            self._process = os.getpid()
        try:
            response = self._pool.request(
                method, url, body=body, retries=retries, timeout=timeout or self.timeout
            )
        # An invalid Location or Retry-After raises ValueError or OverflowError.
        except (urllib3.exceptions.HTTPError, ValueError, OverflowError) as error:
            reason = getattr(error, "reason", None) or error
            raise ServiceError(f"{self.url} does not answer: {reason}") from error
        try:
            if response.status in (200, 202):
                return msgspec.json.decode(response.data, type=answer)
            detail = msgspec.json.decode(response.data, type=Problem).detail
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            detail = f"this is not an answer of the policy service, {path} is not there"
        raise ServiceError(f"{self.url}: {response.status} {detail}", response.status)


def _path_of(model: str) -> str:
    # urllib3 would resolve a name such as `..` as a relative path.
    return "/models/" + quote(model, safe="").replace(".", "%2E")


def _to_builtin(value: Any) -> Any:
    """Convert NumPy arrays and scalars."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"observations cannot contain a {type(value).__name__}")
