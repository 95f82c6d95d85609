"""The random numbers of a request, derived from its seed so that it can be replayed."""

import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.schemas import MAX_SEED


class _Generator(threading.local):
    """NumPy's Philox, one per thread: creating one costs six times as much as setting its key."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.key = [0, 0]
        # NumPy reads the elements of lists faster than those of its own arrays.
        counter = {"counter": [0] * 4, "key": self.key}
        self.state: Any = {**self.philox.state, "state": counter, "buffer": [0] * 4}

    def bits(self, key: int, count: int) -> npt.NDArray[np.uint64]:
        """The first `count` words of the stream of a key."""
        self.key[0] = key
        self.philox.state = self.state
        return self.philox.random_raw(count)


_generator = _Generator()


def draw_seeds(count: int) -> list[int]:
    """Draw seeds for requests without one, each from all 53 bits."""
    return [word & MAX_SEED for word in struct.unpack(f"{count}Q", os.urandom(8 * count))]


def uniforms_of(seeds: Sequence[int], rows: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draw one number in [0, 1) per row of each request, concatenated: `[sum(rows)]`.

    Row `i` of a request depends only on its seed and `i`, never on the number of rows. The
    generator is Philox4x64-10 with the seed as its key (Salmon et al. 2011), whose raw output is
    the same in all versions of NumPy; the upper 24 bits of each word become a float32.
    """
    return _uniforms(np.concatenate(list(map(_generator.bits, seeds, rows))))


def uniform_stream(seed: int) -> Callable[[int], npt.NDArray[np.float32]]:
    """The numbers of `uniforms_of` for one request with any number of rows, in parts.

    Each call draws the numbers for the given number of next rows.
    """
    philox = np.random.Philox(key=seed)
    return lambda rows: _uniforms(philox.random_raw(rows))


def _uniforms(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    return (bits >> 40).astype(np.float32) * 2.0**-24
