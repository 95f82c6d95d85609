"""The random numbers of a seed."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from serving.policy.sampling import draw_seeds, uniforms_of
from serving.schemas import MAX_SEED

seeds = st.integers(0, MAX_SEED)


def uniforms(seed: int, rows: int) -> npt.NDArray[np.float32]:
    return uniforms_of([seed], [rows])


@given(seeds, st.integers(1, 200), st.integers(1, 200))
def test_a_rows_number_does_not_depend_on_the_number_of_rows(seed: int, a: int, b: int) -> None:
    shorter, longer = sorted([a, b])
    np.testing.assert_array_equal(uniforms(seed, shorter), uniforms(seed, longer)[:shorter])


@given(seeds)
def test_numbers_are_float32_in_the_half_open_unit_interval(seed: int) -> None:
    numbers = uniforms(seed, 50)
    assert numbers.dtype == np.float32
    assert (numbers >= 0).all()
    assert (numbers < 1).all()


def test_numbers_are_uniform_over_rows_and_over_seeds() -> None:
    over_rows = uniforms(7, 100_000)
    over_seeds = np.concatenate([uniforms(seed, 1) for seed in range(20_000)])
    for numbers in (over_rows, over_seeds):
        counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
        expected = len(numbers) / 20
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        assert chi_squared < 43.8  # 0.1% of 19 degrees of freedom


def philox4x64_10(counter: list[int], key: list[int]) -> list[int]:
    """Written from Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"."""
    mask = 2**64 - 1
    for _ in range(10):
        product_0, product_2 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (product_2 >> 64) ^ counter[1] ^ key[0],
            product_2 & mask,
            (product_0 >> 64) ^ counter[3] ^ key[1],
            product_0 & mask,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


def test_the_reference_gives_the_published_vector() -> None:
    # Random123's known answer test of philox4x64, 10 rounds, counter and key zero
    assert philox4x64_10([0, 0, 0, 0], [0, 0]) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


@given(seeds)
def test_the_numbers_are_those_of_the_paper(seed: int) -> None:
    # NumPy's counter starts at 1
    bits = [*philox4x64_10([1, 0, 0, 0], [seed, 0]), *philox4x64_10([2, 0, 0, 0], [seed, 0])]
    expected = [(word >> 40) / 2**24 for word in bits]
    np.testing.assert_array_equal(uniforms(seed, 8), expected)


def test_drawn_seeds_are_accepted_and_differ() -> None:
    drawn = set(draw_seeds(100))
    assert len(drawn) == 100
    assert all(0 <= seed <= MAX_SEED for seed in drawn)


def test_every_bit_of_a_seed_is_drawn() -> None:
    # With 32 bits, two of 77,000 requests would share a seed with probability 1/2.
    drawn = draw_seeds(200)
    zeros_and_ones = [{seed >> bit & 1 for seed in drawn} for bit in range(MAX_SEED.bit_length())]
    assert zeros_and_ones == [{0, 1}] * 53
