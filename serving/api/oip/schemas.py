"""What is said in the Open Inference Protocol v2, with Triton's extensions.

Clients write null for what they leave out, and parameters that only some servers know.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serving.schemas import Seed, WholeFloat

Size = Annotated[int, Meta(ge=0)]


class SharedMemory(msgspec.Struct):
    """Triton's shared memory, which this service has not."""

    shared_memory_region: Annotated[str | None, Meta(description="Not supported: 400.")] = None


class InputParameters(SharedMemory):
    """Of one input."""

    binary_data_size: Annotated[
        Size | None, Meta(description="Bytes behind the JSON that are this tensor.")
    ] = None


class InferInput(msgspec.Struct):
    """A tensor; without `data` its bytes follow the JSON."""

    name: str
    shape: list[Size]
    datatype: str
    data: Annotated[
        list[Any] | None, Meta(description="Numbers, flat in row-major order or nested.")
    ] = None
    parameters: InputParameters | None = None


class OutputParameters(SharedMemory):
    """Of one output that is asked for."""

    binary_data: Annotated[
        bool | None, Meta(description="Whether to answer it as bytes behind the JSON.")
    ] = None
    classification: Annotated[
        int | None, Meta(description="Triton's most probable classes. Not supported: 400.")
    ] = None


class InferOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters | None = None


class RequestParameters(msgspec.Struct):
    """How to decide, and how to answer."""

    seed: Annotated[
        Seed | WholeFloat | None,
        Meta(description="Replays the sampled actions. Without one the service draws it."),
    ] = None
    deterministic: Annotated[
        bool | None, Meta(description="Take the most probable actions. Else they are sampled.")
    ] = None
    binary_data_output: Annotated[
        bool | None, Meta(description="Whether to answer all outputs as bytes behind the JSON.")
    ] = None


class InferRequest(msgspec.Struct):
    """Observations to decide about, as the one tensor `observations`."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: RequestParameters | None = None
    outputs: Annotated[
        list[InferOutput] | None, Meta(description="Outputs to answer; all where none is named.")
    ] = None


class LoadRequest(msgspec.Struct):
    """How to load a model."""

    parameters: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Triton's `config` and files. Not supported: any is answered 400.",
            extra_json_schema={"maxProperties": 0},
        ),
    ] = None


class IndexRequest(msgspec.Struct):
    """Which versions to list."""

    ready: Annotated[bool | None, Meta(description="Only those that can answer.")] = None


class TensorConfig(msgspec.Struct):
    """A tensor in a model's configuration; -1 is a dimension that varies."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(msgspec.Struct):
    """What Triton calls a model's configuration."""

    name: str
    platform: str
    backend: str
    max_batch_size: Annotated[
        int, Meta(description="0: the dimension of the rows is in `dims`, and is no other's.")
    ]
    input: list[TensorConfig]
    output: list[TensorConfig]


class Duration(msgspec.Struct):
    """How often, and how long in all."""

    count: Size
    ns: Annotated[Size, Meta(description="Nanoseconds.")]


class InferenceStatistics(msgspec.Struct):
    """Requests, and the steps of those that succeeded.

    Those decided together are decoded, decided and encoded together: the times of all of them are
    each one's.
    """

    success: Duration
    fail: Annotated[Duration, Meta(description="Requests whose observations were refused.")]
    compute_input: Annotated[Duration, Meta(description="Decoding.")]
    compute_infer: Annotated[Duration, Meta(description="Deciding.")]
    compute_output: Annotated[Duration, Meta(description="Encoding.")]
    queue: Annotated[Duration, Meta(description="Requests have no queue: 0 ns.")]
    cache_hit: Annotated[Duration, Meta(description="No answer is cached.")]
    cache_miss: Annotated[Duration, Meta(description="No answer is cached.")]


class VersionStatistics(msgspec.Struct):
    """What a version was asked since it was loaded, in every protocol and by all workers."""

    name: str
    version: str
    last_inference: Annotated[Size, Meta(description="Milliseconds of Unix time; 0 for never.")]
    inference_count: Annotated[Size, Meta(description="Rows that were decided.")]
    execution_count: Annotated[Size, Meta(description="Calls of the policy.")]
    inference_stats: InferenceStatistics
    batch_stats: Annotated[list[Any], Meta(description="Nothing is counted by size.")]


class StatisticsReport(msgspec.Struct):
    """Triton's statistics, of versions that are loaded."""

    model_stats: list[VersionStatistics]
