"""Type aliases that several modules share."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Observations [B, O] to action logits [B, A] and state values [B].
PolicyFunction = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
