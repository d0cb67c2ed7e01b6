"""A public stream of random words that a seed of 64 bits gives, the same for ever and everywhere.

numpy's generators promise no stream across versions, so what both ends must derive comes from
here: word number i of a seed is SplitMix64's i-th output. Who encodes draws the seed from its own
generator and sends it; nothing of this is secret.

Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014,
https://doi.org/10.1145/2660193.2660195; bounded numbers without bias after Lemire, "Fast Random
Integer Generation in an Interval", ACM TOMACS 2019, https://arxiv.org/abs/1805.10941.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from updates.arrays import F32

#: A seed as it travels.
SEED = struct.Struct("<Q")

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_WORD_BITS = 64
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)

U64 = NDArray[np.uint64]


def draw_seed(rng: np.random.Generator) -> int:
    """Return a fresh seed, 0 to 2**64 - 1."""
    return int(rng.integers(0, 1 << _WORD_BITS, dtype=np.uint64))


def words(seed: int, start: int, count: int) -> U64:
    """Return the words number ``start`` to ``start + count - 1`` of a seed's stream."""
    state = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    state *= _GAMMA
    state += np.uint64(seed)
    state ^= state >> np.uint64(30)
    state *= _MIX_1
    state ^= state >> np.uint64(27)
    state *= _MIX_2
    state ^= state >> np.uint64(31)
    return state


def derived(seed: int, number: int) -> int:
    """Return a seed of its own for part ``number`` of what a seed is for."""
    return int(words(seed, number, 1)[0])


def signs(seed: int, start: int, count: int) -> F32:
    """Return signs as -1 and 1, shape ``(count,)``; ``start`` is a multiple of 64.

    Sign number i is bit ``i % 64`` of word ``i // 64``; a set bit is -1.
    """
    first, last = start // _WORD_BITS, (start + count + _WORD_BITS - 1) // _WORD_BITS
    octets = words(seed, first, last - first).astype("<u8").view(np.uint8)
    negative = np.unpackbits(octets, count=count, bitorder="little").view(np.int8)
    result: F32 = np.subtract(np.int8(1), negative << 1, dtype=np.float32)
    return result


def distinct_positions(seed: int, count: int, limit: int) -> NDArray[np.int64]:
    """Return ``count`` different positions below ``limit``, ascending, every set as likely.

    The set is the first ``count`` different numbers of a stream of numbers below ``limit``; of
    more than half of all positions, those that are left out are drawn so.

    Args:
        seed: Of the public stream.
        count: 0 to ``limit``.
        limit: 1 to 2**32.
    """
    if 2 * count > limit:
        left_out = np.zeros(limit, dtype=bool)
        left_out[_first_distinct(seed, limit - count, limit)] = True
        return np.flatnonzero(~left_out).astype(np.int64, copy=False)
    return _first_distinct(seed, count, limit)


def _first_distinct(seed: int, count: int, limit: int) -> NDArray[np.int64]:
    drawn = 2 * count + 16
    while True:
        numbers, first_seen = np.unique(_below(limit, words(seed, 0, drawn)), return_index=True)
        if numbers.size >= count:
            break
        drawn *= 2
    if count < numbers.size:
        numbers = numbers[first_seen < np.partition(first_seen, count)[count]]
    return numbers.astype(np.int64)


def _below(limit: int, random: U64) -> U64:
    """Return numbers below ``limit``, all as likely; a word that would favour some gives none."""
    products = (random >> _HALF) * np.uint64(limit)
    fair = (products & _LOW_HALF) >= np.uint64((1 << 32) % limit)
    numbers: U64 = products[fair] >> _HALF
    return numbers
