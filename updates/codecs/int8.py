"""Eight bits a value: symmetric uniform quantization with stochastic rounding.

Source: Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding", NeurIPS 2017, https://arxiv.org/abs/1610.02132, section 3.1, here with
the maximum in place of the 2-norm and one bucket a tensor.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from updates.arrays import BLOCK_VALUES, F32, peak, spans
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.bits import U8
from updates.codecs.groups import Groups
from updates.codecs.header import Draft, require_body_length
from updates.codecs.rounding import MIDPOINT, uniforms
from updates.codecs.scaled_body import ScaledBody
from updates.errors import NonFiniteError
from updates.layout import Layout

_LEVELS = 127
_SCALE_BYTES = 4
#: A scale above this could decode to infinity (a code may be -128).
_MAX_SCALE = np.float32(np.finfo(np.float32).max / 128)
_I8 = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Int8Codec(Codec):
    """Each tensor as one scale and one signed byte a value.

    Wire layout of the body: one float32 LE scale a tensor, then ``n`` int8, both in canonical
    order; value = scale * code. ``8 + 32 / (values a tensor)`` bits a value.

    With ``scale = max|x| / 127`` of a tensor, a code is ``floor(x / scale + u)`` with u uniform on
    the 65536 midpoints of [0, 1). The error of a value is below ``scale``, its variance at most
    ``scale**2 / 4``, its mean zero up to ``2**-16 * scale``. Values beyond 127/128 of the largest
    float32 are clipped.
    """

    codec_id: ClassVar[str] = "int8"
    number: ClassVar[int] = 3
    in_step: ClassVar[bool] = True

    @property
    def is_random(self) -> bool:
        """Its rounding is."""
        return True

    @property
    def is_biased(self) -> bool:
        """Stochastic rounding is right on the mean."""
        return False

    @property
    def feedback(self) -> Feedback:
        """Unbiased; where one value towers above a large tensor its error exceeds the others."""
        return "forbidden"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Draft:
        draft = Draft(self._body_bound(layout))
        scales = draft.body[: _SCALE_BYTES * len(layout.tensors)].view("<f4")
        codes = draft.body[scales.nbytes :].view(np.int8)
        for number, values in enumerate(layout.slices().values()):
            scales[number] = _scale(vector[values])
            if scales[number] > 0:
                _quantize(vector[values], scales[number], rng, codes[values])
        return draft

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        scales = np.frombuffer(body, dtype="<f4", count=len(layout.tensors))
        if not np.all((scales >= 0) & (scales <= _MAX_SCALE)):
            message = f"update: a scale is not finite, or not in 0 to {_MAX_SCALE}"
            raise NonFiniteError(message)
        codes = np.frombuffer(body, dtype=np.uint8, offset=scales.nbytes)
        groups = Groups.tensors(layout)
        return ScaledBody(codes, 8, _levels, scales.astype(np.float32, copy=False), groups)

    def _body_bound(self, layout: Layout) -> int:
        return _SCALE_BYTES * len(layout.tensors) + layout.size


def _scale(values: F32) -> np.float32:
    largest = peak(values)
    scale = np.float32(largest / _LEVELS)
    if float(scale) * _LEVELS < largest:
        scale = np.nextafter(scale, np.float32(np.inf))  # so that no |x / scale| exceeds 127
    return min(scale, _MAX_SCALE)


def _quantize(values: F32, scale: np.float32, rng: np.random.Generator, codes: _I8) -> None:
    scratch = np.empty(min(BLOCK_VALUES, values.size), dtype=np.float32)
    for span in spans(0, values.size):
        steps = scratch[: span.stop - span.start]
        np.divide(values[span], scale, out=steps)
        noise = uniforms(rng, steps.size)
        noise += np.float32(MIDPOINT)
        steps += noise
        np.floor(steps, out=steps)
        if scale == _MAX_SCALE:
            np.clip(steps, -_LEVELS, _LEVELS, out=steps)
        np.copyto(codes[span], steps, casting="unsafe")


def _levels(codes: U8) -> _I8:
    return codes.view(np.int8)
