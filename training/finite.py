"""Numbers that nothing can be learned from: NaN and infinity."""

import numpy as np
import numpy.typing as npt

from training.errors import TrainingError
from training.types import FloatArray


class NotFiniteError(TrainingError):
    """A number is NaN or infinite; the message says which one and when."""

    exit_status = 1


def finite_float32(
    numbers: npt.NDArray[np.generic], what: str, when: str, first: int = 0
) -> FloatArray:
    """Numbers of some environments, `[N]` or `[N, O]`, as float32; see `require_finite`.

    Raises:
        NotFiniteError: one is NaN, infinite or beyond float32.
    """
    with np.errstate(over="ignore"):  # it becomes infinite
        converted = np.asarray(numbers, np.float32)
    require_finite(converted, what, when, first)
    return converted


def require_finite(numbers: npt.NDArray[np.floating], what: str, when: str, first: int = 0) -> None:
    """Check numbers of some environments, `[N]` or `[N, O]`, the first of which is number `first`.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    if not np.isfinite(numbers).all():
        wrong = tuple(np.argwhere(~np.isfinite(numbers))[0])
        raise NotFiniteError(
            f"{when}: {what} of environment {first + wrong[0]} is {numbers[wrong]}"
        )
