"""Recomputes recorded decisions, and compares them with what was recorded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.policy.artefact import ArtefactError
from serving.policy.decide import ActResult, DecisionRequest, Results, SamplingSpec, decide_many
from serving.policy.sampling import uniforms_of
from serving.record.lines import Decision, Feedback, Lost
from serving.record.reader import Located, LogError, Section
from serving.schemas import ModelVersion

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow

BATCH_LINES = 4096
_MAX_ROWS = 2**31 - 1  # no limit: the service has refused what was too large

Find = Callable[[ModelVersion], "Policy"]
Numbered = Decision | Feedback | Lost


class Replayed(NamedTuple):
    """Counts of the lines of a log by their result."""

    exact: int = 0  # decisions recomputed bit for bit
    close: int = 0  # equal except for the last bits, as on another machine
    without_rows: int = 0  # decisions recorded without observations: not replayable
    rows: int = 0  # that were recomputed
    feedback: int = 0
    lost: int = 0  # lines that the log itself reports as lost


class _Mismatch(NamedTuple):
    """A line that is not what was decided, and why."""

    place: int  # index among the lines that are checked together
    why: str


def replay(sections: Iterable[Section], find: Find) -> Replayed:
    """Recompute all decisions of a log.

    Args:
        sections: of `read_sections`.
        find: gives the policy that decided, or raises `ArtefactError`.

    Raises:
        LogError: names the first line that is not what was written or decided.
    """
    total = Replayed()
    for lines, damage in _batches(sections):
        counts, wrong = _check([located.line for located in lines], find)
        if wrong:
            file, position, _ = lines[wrong.place]
            raise LogError(f"{file}, line {position}: {wrong.why}")
        if damage:
            raise LogError(damage)
        total = _sum(total, counts)
    return total


def _batches(sections: Iterable[Section]) -> Iterator[tuple[list[Located], str]]:
    """Lines to check together, and what is wrong at or after the last of them; "" if nothing."""
    batch: list[Located] = []
    damage = ""
    try:
        for section in sections:
            batch += section.lines
            if section.damage or len(batch) >= BATCH_LINES:
                yield batch, section.damage
                batch = []
    except LogError as error:  # reported after any fault in the lines before it
        damage = str(error)
    yield batch, damage


def _check(lines: Sequence[Numbered], find: Find) -> tuple[Replayed, _Mismatch | None]:
    """Count lines, or find the first that is wrong."""
    total = Replayed()
    of_model: dict[ModelVersion, dict[int, Decision]] = {}
    for index, line in enumerate(lines):
        if isinstance(line, Lost):
            total = total._replace(lost=total.lost + line.lines)
        elif isinstance(line, Feedback):
            total = total._replace(feedback=total.feedback + 1)
        elif line.observations is None:
            total = total._replace(without_rows=total.without_rows + 1)
        else:
            of_model.setdefault(line.model, {})[index] = line
    wrong: list[_Mismatch] = []
    for model, decisions in of_model.items():
        try:
            counts = _recompute(find(model), decisions)
        except ArtefactError as error:
            counts = _Mismatch(next(iter(decisions)), str(error))
        if isinstance(counts, _Mismatch):
            wrong.append(counts)
        else:
            total = _sum(total, counts)
    return total, min(wrong, default=None)


def _recompute(policy: "Policy", decisions: dict[int, Decision]) -> Replayed | _Mismatch:
    """Recompute the decisions of one policy, all in one call."""
    with np.errstate(over="ignore"):  # an edited number may be beyond float32
        requests = [_request(policy, line) for line in decisions.values()]
        results = decide_many(requests, _MAX_ROWS).results
        is_exact = _is_exact(list(decisions.values()), results)
    close = rows = 0
    for (index, line), result in zip(decisions.items(), results, strict=True):
        if not isinstance(result, ActResult):
            return _Mismatch(index, f"cannot have been decided: {result.detail}")
        if not is_exact[result.start : result.stop].all():
            why = _difference(policy, line, result)
            if why:
                return _Mismatch(index, why)
            close += 1
        if line.warnings != result.warnings:
            return _Mismatch(index, f"was recorded with the warnings {line.warnings}")
        rows += result.stop - result.start
    return Replayed(exact=len(decisions) - close, close=close, rows=rows)


def _request(policy: "Policy", line: Decision) -> DecisionRequest:
    deterministic: Any = line.deterministic
    uniforms = None if line.uniforms is None else np.array(line.uniforms, np.float32)
    if isinstance(deterministic, list):
        deterministic = np.array(deterministic, np.bool_)
    sampling = SamplingSpec(line.seed, deterministic, uniforms)
    return DecisionRequest(policy, line.observations or [], sampling)


def _is_exact(lines: Sequence[Decision], results: Results) -> npt.NDArray[np.bool_]:
    """Which rows of all lines were recomputed bit for bit as they were recorded."""
    batch = next((result.batch for result in results if isinstance(result, ActResult)), None)
    if batch is None or any(not isinstance(result, ActResult) for result in results):
        return np.zeros(sum(len(line.actions) for line in lines), np.bool_)
    actions = np.fromiter(chain.from_iterable(line.actions for line in lines), np.int64)
    logarithms = chain.from_iterable(line.log_probabilities for line in lines)
    values = chain.from_iterable(line.state_values for line in lines)
    is_exact: npt.NDArray[np.bool_] = actions == batch.actions
    is_exact &= np.fromiter(logarithms, np.float32) == batch.log_probabilities
    is_exact &= np.fromiter(values, np.float32) == batch.state_values
    return is_exact


def _difference(policy: "Policy", line: Decision, result: ActResult) -> str:
    """How a decision differs by more than machines do in rounding; "" if it does not.

    If the uniform number is at the boundary between two actions, either may have been taken.
    """
    outputs, tolerance = result.outputs, policy.golden.tolerance
    probabilities = outputs.action_probabilities
    actions, rows = np.array(line.actions), np.arange(len(line.actions))
    if actions.min() < 0 or actions.max() >= probabilities.shape[1]:
        return f"was recorded with the actions {line.actions}, which the policy does not have"
    above = np.cumsum(probabilities, axis=1)[rows, actions]
    taken = probabilities[rows, actions]
    uniforms = line.uniforms if line.seed is None else uniforms_of([line.seed], [len(rows)])
    could = np.where(
        line.deterministic,
        taken >= probabilities.max(axis=1) - tolerance,
        (uniforms >= above - taken - tolerance) & (uniforms <= above + tolerance),
    )
    if not could.all():
        row = int(np.argmin(could))
        return (
            f"was recorded with action {actions[row]} for observations[{row}], "
            f"where the policy takes {outputs.actions[row]}"
        )
    logits = outputs.action_logits
    logarithms = logits[rows, actions] - np.logaddexp.reduce(logits, axis=1)
    recorded = {"log_probabilities": line.log_probabilities, "state_values": line.state_values}
    computed = {"log_probabilities": logarithms, "state_values": outputs.state_values}
    for name, numbers in recorded.items():
        if not np.allclose(numbers, computed[name], tolerance, tolerance):
            return f"was recorded with the {name} {numbers}, recomputed {computed[name].tolist()}"
    return ""


def _sum(one: Replayed, other: Replayed) -> Replayed:
    return Replayed(*map(sum, zip(one, other, strict=True)))
