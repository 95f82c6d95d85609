"""Decides all rows of a file as the service decides the rows of one request."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from serving.errors import InvalidRequestError
from serving.policy.decide import DecisionRequest, Decisions, SamplingSpec, decide_many
from serving.policy.sampling import uniform_stream
from serving.score.results import Results
from serving.score.source import Block, RowError, ScoreError, Source

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow

T = TypeVar("T")


class Scored(NamedTuple):
    """Counts of the rows of a file that were decided."""

    rows: int
    out_of_range_rows: int  # with a number outside the range that training saw


def score_rows(
    policy: "Policy",
    source: Source,
    results: Results,
    seed: int,
    *,
    deterministic: bool,
    advance: Callable[[int], object],
) -> Scored:
    """Decide all rows of a file, block by block, and write the decisions.

    Row `i` of the file gets what row `i` of a single request with this seed and all rows would
    get, however the file is split into blocks.

    Args:
        policy: decides.
        source: the rows.
        results: takes the decisions.
        seed: of the sampled actions, as in a request.
        deterministic: take the most probable actions instead.
        advance: called after each block with its part of `source.total`.

    Raises:
        ScoreError: a row is invalid; the message names its line or row and says why.
        OSError: the file cannot be read, or the results cannot be written.
    """
    rows = out_of_range_rows = 0
    # Reading, deciding and writing overlap: TensorFlow, NumPy and file operations release the GIL.
    decided = _prefetch(
        _decide(policy, _prefetch(source.blocks), seed, deterministic=deterministic)
    )
    try:
        for decisions, size in decided:
            assert decisions.outputs is not None
            results.add(decisions.outputs)
            rows += len(decisions.outputs.actions)
            out_of_range_rows += decisions.out_of_range_rows
            advance(size)
    except RowError as error:
        raise ScoreError(f"{source.path}, {source.place} {error.place}: {error.detail}") from error
    results.finish()
    return Scored(rows, out_of_range_rows)


def _decide(
    policy: "Policy", blocks: Iterator[Block], seed: int, *, deterministic: bool
) -> Iterator[tuple[Decisions, int]]:
    """The decisions about each block, and its size; raises `RowError` at an invalid row."""
    draw = uniform_stream(seed)
    for rows, first, size in blocks:
        sampling = SamplingSpec(seed, deterministic, draw(len(rows)))
        decisions = decide_many([DecisionRequest(policy, rows, sampling)], len(rows))
        (result,) = decisions.results
        if isinstance(result, InvalidRequestError):
            raise _in_file(result, first)
        yield decisions, size


def _in_file(error: InvalidRequestError, first: int) -> RowError:
    """Turn an error about a row of a block into one about a row of the file."""
    found = re.fullmatch(r"observations\[(\d+)\](?:: |\.)(.*)", error.detail, re.DOTALL)
    assert found is not None, error.detail
    return RowError(first + int(found[1]), found[2])


def _prefetch(items: Iterator[T]) -> Iterator[T]:
    """Compute the next item on a thread while the caller uses this one; raise its errors."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
