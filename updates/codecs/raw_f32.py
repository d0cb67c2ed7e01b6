"""Float32 as it is: the reference that every other codec is measured against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, check_finite, spans
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.header import require_body_length
from updates.layout import Layout

_ITEM_BYTES = 4


@dataclass(frozen=True, slots=True)
class RawF32Codec(Codec):
    """The values themselves.

    Wire layout of the body: ``n`` float32 LE in canonical order. 32 bits a value, no error.
    """

    codec_id: ClassVar[str] = "raw-f32"
    number: ClassVar[int] = 1
    in_step: ClassVar[bool] = True

    @property
    def is_biased(self) -> bool:
        """Nothing is lost."""
        return False

    @property
    def feedback(self) -> Feedback:
        """There is nothing to feed back."""
        return "allowed"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del layout, rng
        return (np.ascontiguousarray(vector, dtype="<f4").data,)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        values = np.frombuffer(body, dtype="<f4").astype(np.float32, copy=False)
        check_finite(values, "update")
        return ((span, values[span]) for span in spans(0, layout.size))

    def _body_bound(self, layout: Layout) -> int:
        return _ITEM_BYTES * layout.size
