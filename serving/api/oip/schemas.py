"""Schemas of the Open Inference Protocol v2, with Triton's extensions.

Clients may write null for omitted fields, and send parameters that only some servers know.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serving.schemas import Seed, WholeFloat

Size = Annotated[int, Meta(ge=0)]


class SharedMemory(msgspec.Struct):
    """Triton's shared memory, which this service does not support."""

    shared_memory_region: Annotated[str | None, Meta(description="Not supported: 400.")] = None


class InputParameters(SharedMemory):
    """Parameters of an input."""

    binary_data_size: Annotated[
        Size | None, Meta(description="The size of this tensor in bytes, after the JSON.")
    ] = None


class InferInput(msgspec.Struct):
    """An input. Without `data`, its bytes follow the JSON."""

    name: str
    shape: list[Size]
    datatype: str
    data: Annotated[
        list[Any] | None, Meta(description="Numbers, flat in row-major order or nested.")
    ] = None
    parameters: InputParameters | None = None


class OutputParameters(SharedMemory):
    """Parameters of an output."""

    binary_data: Annotated[
        bool | None, Meta(description="Whether to send it in binary, after the JSON.")
    ] = None
    classification: Annotated[
        int | None, Meta(description="Triton's most probable classes. Not supported: 400.")
    ] = None


class InferOutput(msgspec.Struct):
    """An output to send."""

    name: str
    parameters: OutputParameters | None = None


class RequestParameters(msgspec.Struct):
    """How to choose actions, and how to send the outputs."""

    seed: Annotated[
        Seed | WholeFloat | None,
        Meta(description="Seed of the sampling; the service draws one if it is absent."),
    ] = None
    deterministic: Annotated[
        bool | None, Meta(description="Take the most probable actions instead of sampling.")
    ] = None
    binary_data_output: Annotated[
        bool | None, Meta(description="Whether to send all outputs in binary, after the JSON.")
    ] = None


class InferRequest(msgspec.Struct):
    """Observations, as the only input `observations`."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: RequestParameters | None = None
    outputs: Annotated[
        list[InferOutput] | None, Meta(description="The outputs to send; all if absent.")
    ] = None


class LoadRequest(msgspec.Struct):
    """How to load a model."""

    parameters: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Triton's `config` and files. Not supported: 400.",
            extra_json_schema={"maxProperties": 0},
        ),
    ] = None


class IndexRequest(msgspec.Struct):
    """Which versions to list."""

    ready: Annotated[bool | None, Meta(description="Only loaded versions.")] = None


class TensorConfig(msgspec.Struct):
    """A tensor in a model's configuration; -1 is a dimension of any size."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(msgspec.Struct):
    """A model configuration of Triton."""

    name: str
    platform: str
    backend: str
    max_batch_size: Annotated[int, Meta(description="Always 0: the batch dimension is in `dims`.")]
    input: list[TensorConfig]
    output: list[TensorConfig]


class Duration(msgspec.Struct):
    """A count, and a total duration."""

    count: Size
    ns: Annotated[Size, Meta(description="Nanoseconds.")]


class InferenceStatistics(msgspec.Struct):
    """Requests, and the durations of the steps of those that succeeded.

    Requests that are answered in one batch share the steps: each counts their whole duration.
    """

    success: Duration
    fail: Annotated[Duration, Meta(description="Requests whose observations were refused.")]
    compute_input: Annotated[Duration, Meta(description="Decoding.")]
    compute_infer: Annotated[Duration, Meta(description="Deciding.")]
    compute_output: Annotated[Duration, Meta(description="Encoding.")]
    queue: Annotated[Duration, Meta(description="Always 0: there is no queue.")]
    cache_hit: Annotated[Duration, Meta(description="No answer is cached.")]
    cache_miss: Annotated[Duration, Meta(description="No answer is cached.")]


class VersionStatistics(msgspec.Struct):
    """Statistics of a version since it was loaded, of every protocol and all workers."""

    name: str
    version: str
    last_inference: Annotated[Size, Meta(description="Milliseconds of Unix time; 0 for never.")]
    inference_count: Annotated[Size, Meta(description="Observations.")]
    execution_count: Annotated[Size, Meta(description="Calls of the policy.")]
    inference_stats: InferenceStatistics
    batch_stats: Annotated[
        list[Any], Meta(description="Always empty: nothing is counted by batch size.")
    ]


class StatisticsReport(msgspec.Struct):
    """Triton's statistics of the loaded versions."""

    model_stats: list[VersionStatistics]
