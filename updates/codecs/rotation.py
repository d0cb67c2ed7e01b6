"""A random rotation that a seed gives: signs, then the Walsh-Hadamard transform, block by block.

Only float32 additions, so both ends compute the same on every machine. The transform is left
unnormalised: applied twice it multiplies by the block's size, and whoever uses it divides.

One round of signs and transform leaves structure: a single large value becomes ``size`` equal
magnitudes, whose signs tell of it alone. After a second round the values are near to Gaussian for
any update, which is what an unbiased quantizer of them needs.

Source: Ailon, Chazelle, "The Fast Johnson-Lindenstrauss Transform", SIAM J. Comput. 2009,
https://doi.org/10.1137/060673096; as a codec's rotation Suresh, Yu, Kumar, McMahan, "Distributed
Mean Estimation with Limited Communication", ICML 2017, https://arxiv.org/abs/1611.00429; more
rounds Andoni, Indyk, Laarhoven, Razenshteyn, Schmidt, "Practical and Optimal LSH for Angular
Distance", NeurIPS 2015, https://arxiv.org/abs/1509.02897.
"""

from collections.abc import Sequence

import numpy as np

from updates.arrays import F32
from updates.codecs.public_random import derived, signs

#: Values of a full block; with its scratch it stays in the L1 or L2 cache.
FULL_BLOCK = 1 << 14
#: No block is shorter: a rotation of few values is far from Gaussian.
_LEAST_BLOCK = 64
#: A rest is split into blocks unless it is this short, or padding adds at most an eighth.
_SHORT = 256
_PADDING_SHARE = 8


def block_sizes(values: int) -> list[int]:
    """Return the powers of two, none above ``FULL_BLOCK``, into which a vector is cut.

    Only the last may reach beyond the vector's end, where it is padded with zeros; each is a
    multiple of 64 long.
    """
    full, rest = divmod(values, FULL_BLOCK)
    sizes = [FULL_BLOCK] * full
    while rest > 0:
        size = max(_LEAST_BLOCK, 1 << (rest - 1).bit_length())
        if size > _SHORT and (size - rest) * _PADDING_SHARE > size:
            size //= 2
        sizes.append(size)
        rest -= size
    return sizes


def round_seeds(seed: int, rounds: int) -> list[int]:
    """Return the seed of each round's signs."""
    return [derived(seed, number) for number in range(rounds)]


def rotate(values: F32, seeds: Sequence[int], start: int, size: int) -> F32:
    """Return ``H D x`` for each seed's D in turn, shape ``(size,)``.

    Args:
        values: At most ``size`` values; zeros make up for the rest.
        seeds: One a round.
        start: Position of the first value in the whole vector, a multiple of 64.
        size: A power of two.
    """
    block = np.zeros(size, dtype=np.float32)
    block[: values.size] = values
    for seed in seeds:
        block *= signs(seed, start, size)
        block = hadamard(block)
    return block


def rotate_back(rotated: F32, seeds: Sequence[int], start: int) -> F32:
    """Return ``size`` to the number of rounds times the block that ``rotate`` was given."""
    block = rotated
    for seed in reversed(seeds):
        block = hadamard(block)
        block *= signs(seed, start, block.size)
    return block


def hadamard(block: F32) -> F32:
    """Return the unnormalised Walsh-Hadamard transform of a power of two of values.

    Every pass is the same: sums of the two halves go to the even places, differences to the odd
    (Pease, "An Adaptation of the Fast Fourier Transform for Parallel Processing", JACM 1968), so
    that numpy has long rows in every pass. The order of the result is the natural one.
    """
    half = block.size // 2
    source, target = block.copy(), np.empty_like(block)
    for _ in range(half.bit_length()):
        np.add(source[:half], source[half:], out=target[0::2])
        np.subtract(source[:half], source[half:], out=target[1::2])
        source, target = target, source
    result: F32 = source
    return result
