"""Models in the Open Inference Protocol v2, with Triton's model repository. No HTTP."""

import logging
from typing import Any, Literal

from serving.api.keys import Key
from serving.api.oip.inference import find
from serving.api.oip.schemas import (
    Duration,
    InferenceStatistics,
    ModelConfig,
    StatisticsReport,
    TensorConfig,
    VersionStatistics,
)
from serving.errors import ConflictError, ForbiddenError, InvalidRequestError
from serving.policy.savedmodel import Policy
from serving.registry.repository import Repository
from serving.registry.selection import SelectionError
from serving.settings import Settings
from serving.statistics import Inferences, Statistics

logger = logging.getLogger(__name__)

_TF_DATATYPES = {"DT_FLOAT": "FP32", "DT_INT64": "INT64"}
_PLATFORM = "tensorflow_savedmodel"
_LOADED = ("served", "canary", "shadow", "labelled")


class InferenceModels:
    """Answers about the service and its models: objects with the protocol's names in JSON.

    Methods that take a version raise `NotFoundError` and `NotReadyError` as `find` does.
    """

    def __init__(self, repository: Repository, settings: Settings, statistics: Statistics) -> None:
        self._repository = repository
        self._settings = settings
        self._statistics = statistics

    def server(self) -> dict[str, Any]:
        """The service itself."""
        extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
        return {"name": "actor-critic", "version": "1", "extensions": extensions}

    def require_ready(self) -> None:
        """Raise `NotReadyError` if no version of the default model is served."""
        self._repository.policy()

    def model(self, name: str, version: str | None = None) -> dict[str, Any]:
        """A model's versions, inputs and outputs."""
        policy = find(self._repository, name, version).policy
        signature = policy.signatures["serving_default"]
        versions = self._repository.report(name).versions
        return {
            "name": policy.name,
            "versions": [str(one.version) for one in versions if one.state in _LOADED],
            "platform": _PLATFORM,
            "inputs": _metadata(signature["inputs"]),
            "outputs": _metadata(signature["outputs"]),
        }

    def model_ready(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Answer that a model is ready, or raise."""
        return {"name": find(self._repository, name, version).policy.name, "ready": True}

    def config(self, name: str, version: str | None = None) -> ModelConfig:
        """Triton's configuration of a model."""
        policy = find(self._repository, name, version).policy
        signature = policy.signatures["serving_default"]
        inputs, outputs = (
            [
                TensorConfig(tensor["name"], f"TYPE_{tensor['datatype']}", tensor["shape"])
                for tensor in _metadata(signature[kind])
            ]
            for kind in ("inputs", "outputs")
        )
        return ModelConfig(policy.name, _PLATFORM, "tensorflow", 0, inputs, outputs)

    def all_statistics(self) -> StatisticsReport:
        """Triton's statistics of every loaded version."""
        return self._stats_of(self._repository.loaded())

    def statistics(self, name: str, version: str | None = None) -> StatisticsReport:
        """Triton's statistics of a model's loaded versions, or of one version."""
        policies = [] if version is not None else self._repository.loaded(name)
        return self._stats_of(policies or [find(self._repository, name, version).policy])

    def _stats_of(self, policies: list[Policy]) -> StatisticsReport:
        total = self._statistics.total
        return StatisticsReport([_statistics(one, total(*one.key)) for one in policies])

    def index(self, *, only_ready: bool) -> list[dict[str, Any]]:
        """Every version in the models folder, or those that can answer."""
        return [
            {
                "name": model.name,
                "version": str(report.version),
                "state": "READY" if report.state in _LOADED else "UNAVAILABLE",
                "reason": report.reason,
            }
            for model in self._repository.reports()
            for report in model.versions
            if report.state in _LOADED or not only_ready
        ]

    def load(self, name: str, parameters: dict[str, Any] | None, key: Key | None) -> None:
        """Serve the newest version from now on.

        Raises:
            InvalidRequestError: there are parameters.
            ProblemError: as `unload`; or the newest version is not served.
        """
        if parameters:
            first = next(iter(parameters))
            what = "a version is loaded as it is in the models folder"
            raise InvalidRequestError(f"parameters: {first!r} is not supported: {what}")
        self._select(name, "newest", key)
        self._repository.policy(name)

    def unload(self, name: str, key: Key | None) -> None:
        """Serve no version from now on.

        Raises:
            ForbiddenError: the service has no keys.
            ConflictError: the version is pinned, or the models folder is read-only.
        """
        self._select(name, "nothing", key)

    def _select(self, name: str, serve: Literal["newest", "nothing"], key: Key | None) -> None:
        if key is None:
            raise ForbiddenError("models are loaded and unloaded only where API keys are set")
        if (pin := self._settings.pin) is not None and name == self._settings.name:
            raise ConflictError(f"{name}: the service was started with version {pin}")
        try:
            self._repository.select(name, serve)
        except SelectionError as error:
            # Not 503: the folder is read-only by the operator's decision, and stays so.
            raise ConflictError(str(error)) from error
        logger.info("%s serves %s from now on, by API key %s", name, serve, key.name)


def _metadata(tensors: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": _TF_DATATYPES[tensor["dtype"]],
            "shape": [int(dimension["size"]) for dimension in tensor["tensor_shape"]["dim"]],
        }
        for name, tensor in sorted(tensors.items())
    ]


def _statistics(policy: Policy, total: Inferences) -> VersionStatistics:
    steps = total.decode_nanoseconds, total.decide_nanoseconds, total.encode_nanoseconds
    decode, decide, encode = (Duration(total.requests, step) for step in steps)
    return VersionStatistics(
        name=policy.name,
        version=str(policy.version),
        last_inference=total.last_milliseconds,
        inference_count=total.rows,
        execution_count=total.executions,
        inference_stats=InferenceStatistics(
            success=Duration(total.requests, sum(steps)),
            fail=Duration(total.failures, total.failure_nanoseconds),
            compute_input=decode,
            compute_infer=decide,
            compute_output=encode,
            queue=Duration(total.requests, 0),
            cache_hit=Duration(0, 0),
            cache_miss=Duration(0, 0),
        ),
        batch_stats=[],
    )
