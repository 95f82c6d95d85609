"""The randomness of a request, so that each of its answers can be replayed."""

import secrets
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# The largest whole number that every JSON client holds exactly (RFC 8259, section 6).
MAX_SEED = 2**53 - 1


class _Generator(threading.local):
    """NumPy's Philox, one a thread: to make one costs six times what it costs to set its key."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.state = self.philox.state

    def bits(self, key: int, count: int) -> npt.NDArray[np.uint64]:
        """The first words of a key."""
        self.state["state"]["key"][0] = key
        self.philox.state = self.state
        return self.philox.random_raw(count)


_generator = _Generator()


def draw_seed() -> int:
    """A seed for a request that brings none."""
    return secrets.randbits(MAX_SEED.bit_length())


def uniforms(seed: int, rows: int) -> npt.NDArray[np.float32]:
    """One number in [0, 1) for each row of a request, `[rows]`.

    Row `i` depends on the seed and `i` alone, never on the number of rows. The bits are
    those of Philox4x64-10 with the seed as its key (Salmon et al. 2011), whose raw output
    NumPy keeps the same across versions; the upper 24 of each become a float32.
    """
    return uniforms_of([seed], [rows])


def uniforms_of(seeds: Sequence[int], rows: Sequence[int]) -> npt.NDArray[np.float32]:
    """`uniforms` of several requests one after the other, `[sum(rows)]`."""
    bits = np.concatenate(list(map(_generator.bits, seeds, rows)))
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
