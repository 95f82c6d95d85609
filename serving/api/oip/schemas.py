"""What is said in the Open Inference Protocol v2, with Triton's extensions.

Clients write null for what they leave out, and parameters that only some servers know.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serving.schemas import Seed, WholeFloat

Size = Annotated[int, Meta(ge=0)]


class InputParameters(msgspec.Struct):
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


class OutputParameters(msgspec.Struct):
    """Of one output that is asked for."""

    binary_data: Annotated[
        bool | None, Meta(description="Whether to answer it as bytes behind the JSON.")
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


class ResponseTensor(msgspec.Struct, frozen=True):
    """An output; without `data` its bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: Annotated[list[float], Meta(description="Flat, in row-major order.")] = []
    parameters: dict[str, int] = {}


class InferResponse(msgspec.Struct, frozen=True):
    """Decisions."""

    model_name: str
    model_version: str
    parameters: Annotated[
        dict[str, int | str],
        Meta(description="`seed` replays the actions; `warnings` where there are any."),
    ]
    outputs: list[ResponseTensor]
    id: Annotated[str, Meta(description="That of the request.")] = ""


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor of a model; -1 is a dimension that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model, and the versions that can be asked."""

    name: str
    versions: list[str]
    platform: Literal["tensorflow_savedmodel"]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(msgspec.Struct, frozen=True):
    """The service, and the extensions of the protocol that it speaks."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(msgspec.Struct, frozen=True):
    """The process runs."""

    live: Literal[True]


class ServerReady(msgspec.Struct, frozen=True):
    """A version can answer."""

    ready: Literal[True]


class ModelReady(msgspec.Struct, frozen=True):
    """The model can answer."""

    name: str
    ready: Literal[True]


class IndexRequest(msgspec.Struct):
    """Which versions to list."""

    ready: Annotated[bool | None, Meta(description="Only those that can answer.")] = None


class IndexEntry(msgspec.Struct, frozen=True):
    """A version on the disk."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: Annotated[str, Meta(description="Why it is in that state.")]


class ErrorObject(msgspec.Struct, frozen=True):
    """Any answer that is not the one asked for."""

    error: Annotated[str, Meta(description="What is wrong.")]
