"""DRIVE and EDEN: a seeded rotation, then the best quantizer for what a rotation gives.

Sources: Vargaftik, Ben-Basat, Portnoy, Mendelson, Ben-Itzhak, Mitzenmacher, "DRIVE: One-bit
Distributed Mean Estimation", NeurIPS 2021, https://arxiv.org/abs/2105.08339 (one bit); the same,
"EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning",
ICML 2022, https://arxiv.org/abs/2108.08842; levels after Lloyd, "Least Squares Quantization in
PCM", IEEE Trans. Inf. Theory 1982, and Max, "Quantizing for Minimum Distortion", IRE 1960.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from updates.arrays import F32, F64, peak
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.eden_levels import LEVELS
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_flag, check_int
from updates.codecs.public_random import SEED, draw_seed
from updates.codecs.rotation import block_sizes, rotate, rotate_back, round_seeds
from updates.codecs.scaled_halves import times_power_of_two
from updates.errors import NonFiniteError
from updates.layout import Layout

_SCALE_BYTES = 4
_BYTE_BITS = 8
_MAX_F32 = float(np.finfo(np.float32).max)
_Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EdenCodec(Codec):
    """Each value of the rotated vector as the nearest of ``2**bits`` levels of a Gaussian.

    The flat vector is cut into blocks (``rotation.block_sizes``), each multiplied by public signs
    and transformed (Walsh-Hadamard), divided by its root mean square and quantized.

    Wire layout of the body: seed (u64 LE); one float32 LE a block, its scale; ``bits`` planes of
    bits, plane j holding bit j of every code, from the least significant. A code is
    ``2 * level + negative``. A decoded block is ``scale * D H q`` with q the levels and H
    unnormalised (D' H D H q if unbiased). ``bits + 32 / 16384`` bits a value, plus the padding of
    the vector's rest: at most an eighth of it, or 128 values.

    With ``unbiased`` the scale makes ``<decoded, x> = ||x||**2`` exactly. Its squared error is
    0.571, 0.133, 0.036, 0.0096, 0.0025, 0.00064 of ``||x||**2`` for 1 to 6 bits; it may exceed
    ``||x||**2`` in short blocks, so error feedback is forbidden. Without, the decoded block is the
    projection of x, with 0.363, 0.117, 0.0345, 0.0095, 0.0025, 0.00064, or less where few values
    tower: always less than ``||x||**2``, so error feedback is allowed. One bit is DRIVE. Values
    beyond the largest float32 are clipped.

    The papers prove no bias for uniform rotations. For signs and Hadamard it holds nearly: one
    round is truly biased (by 0.37 of ``||x||`` for 256 values of which one towers), so two are
    made. Then, measured at 1 bit over 15 000 to 40 000 draws, the bias is below 0.006 of ``||x||``
    for 64 values, the shortest block, and below 0.002 from 256 on. Only a vector of a handful of
    values, of which one towers, padded to 64, keeps a true bias: 0.05 of ``||x||`` for five.

    Attributes:
        bits: Bits a value, 1 to 6.
        unbiased: Which of the two scales is sent.
    """

    codec_id: ClassVar[str] = "eden"
    number: ClassVar[int] = 16

    bits: int = 1
    unbiased: bool = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 1, max(LEVELS))
        check_flag("unbiased", self.unbiased)

    @property
    def is_random(self) -> bool:
        """Its rotation is."""
        return True

    @property
    def is_biased(self) -> bool:
        """Unless the scale makes up for what rounding takes away."""
        return not self.unbiased

    @property
    def feedback(self) -> Feedback:
        """Unbiased, the error of a short block may exceed it; the projection is a contraction."""
        return "forbidden" if self.unbiased else "allowed"

    @property
    def _rounds(self) -> int:
        """Of signs and transform; a projection needs no second one."""
        return 2 if self.unbiased else 1

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        sizes = block_sizes(layout.size)
        seed, start = draw_seed(rng), 0
        seeds = round_seeds(seed, self._rounds)
        scales = np.zeros(len(sizes), dtype="<f4")
        codes = np.zeros(sum(sizes), dtype=np.uint8)
        for number, size in enumerate(sizes):
            stop = start + size
            scales[number] = self._quantize(vector[start:stop], seeds, start, codes[start:stop])
            start = stop
        planes = [np.packbits((codes >> bit) & 1, bitorder="little") for bit in range(self.bits)]
        return (SEED.pack(seed), scales.data, *(plane.data for plane in planes))

    def _quantize(self, values: F32, seeds: Sequence[int], start: int, codes: _Codes) -> float:
        """Fill in the codes of one block and return its scale."""
        exponent = math.frexp(peak(values))[1]
        rotated = rotate(times_power_of_two(values, -exponent), seeds, start, codes.size)
        energy = _dot(rotated, rotated)
        if energy == 0:
            return 0.0
        rotated *= np.float32(math.sqrt(codes.size / energy))
        _nearest(rotated, self.bits, codes)
        levels = _values(codes, self.bits)
        along = _dot(rotated, levels)
        unit = codes.size / along if self.unbiased else along / _dot(levels, levels)
        scale = unit * math.sqrt(energy / codes.size) / codes.size**self._rounds
        return min(math.ldexp(scale, exponent), _MAX_F32)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        sizes = block_sizes(layout.size)
        scales = np.frombuffer(body, dtype="<f4", count=len(sizes), offset=SEED.size)
        if not np.all((scales >= 0) & (scales <= _MAX_F32)):
            message = "update: the scale of a block is negative or not finite"
            raise NonFiniteError(message)
        (seed,) = SEED.unpack_from(body)
        planes = np.frombuffer(body, dtype=np.uint8, offset=SEED.size + scales.nbytes)
        return self._turned_back(planes.reshape(self.bits, -1), scales, seed, layout)

    def _turned_back(
        self, planes: _Codes, scales: F32, seed: int, layout: Layout
    ) -> Iterator[Block]:
        seeds, start = round_seeds(seed, self._rounds), 0
        for size, scale in zip(block_sizes(layout.size), scales, strict=True):
            stop = min(start + size, layout.size)
            levels = _values(_codes(planes, start, size), self.bits)
            rotated = rotate_back(levels, seeds, start)[: stop - start]
            values = np.multiply(rotated, float(scale), dtype=np.float64)
            yield slice(start, stop), np.clip(values, -_MAX_F32, _MAX_F32).astype(np.float32)
            start += size

    def _body_bound(self, layout: Layout) -> int:
        sizes = block_sizes(layout.size)
        plane_bytes = (sum(sizes) + _BYTE_BITS - 1) // _BYTE_BITS
        return SEED.size + _SCALE_BYTES * len(sizes) + self.bits * plane_bytes


def _dot(left: F32, right: F32) -> float:
    products: F64 = np.multiply(left, right, dtype=np.float64)
    return float(products.sum())


def _nearest(units: F32, bits: int, codes: _Codes) -> None:
    """Fill in the code of the nearest level of each value."""
    levels = LEVELS[bits]
    magnitudes = np.abs(units)
    for middle in (levels[1:] + levels[:-1]) / 2:
        codes += magnitudes > middle
    codes <<= 1
    codes |= units < 0


def _values(codes: _Codes, bits: int) -> F32:
    levels = LEVELS[bits]
    return np.stack((levels, -levels), axis=1).reshape(-1)[codes]


def _codes(planes: _Codes, start: int, size: int) -> _Codes:
    """Return the codes of a block; it begins at a whole byte of every plane."""
    first, last = start // _BYTE_BITS, (start + size + _BYTE_BITS - 1) // _BYTE_BITS
    codes = np.zeros(size, dtype=np.uint8)
    for bit, plane in enumerate(planes):
        codes |= np.unpackbits(plane[first:last], count=size, bitorder="little") << bit
    return codes
