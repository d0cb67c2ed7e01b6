"""The weighted sum of many encoded updates, in one pass over the sum for several of them.

Updates whose bodies are read in the same blocks are added up block by block: while a block of the
sum is in the cache it takes the values of all, one update after the other. Each position so gets
the same additions in the same order as from one update at a time, hence the same bits.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from typing_extensions import Buffer

from updates.arrays import F64
from updates.codecs.base import Codec
from updates.kernels import Kernels
from updates.layout import Layout
from updates.workspace import Workspace

#: Payloads that are held at a time: so many, or the first that together have so many bytes.
AT_ONCE = 8
AT_ONCE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Encoded:
    """One update of a sum.

    Attributes:
        codec: What it was encoded with.
        payload: The update.
        weight: Its factor.
    """

    codec: Codec
    payload: Buffer
    weight: float


def add_all(
    accumulator: F64,
    updates: Iterable[Encoded],
    layout: Layout,
    kernels: Kernels | None = None,
) -> None:
    """Add up updates, to the bit as ``Codec.add_into`` does one after the other.

    Args:
        accumulator: float64 of shape ``(layout.size,)``, changed in place.
        updates: Taken when there is room, so what loads them on the way holds few in memory.
        layout: Names and shapes behind the vectors.
        kernels: Compiled loops; None: numpy.

    Raises:
        PayloadError: A payload is not one that its codec writes for the layout; the sum is then
            of no use.
        ValueError: The accumulator is not of the layout's size.
    """
    workspace = Workspace(kernels)
    for group in _groups(updates):
        steps = [
            one.codec.adding(accumulator, one.payload, layout, one.weight, workspace)
            for one in group
        ]
        deque(zip(*steps, strict=True), maxlen=0)
        # Before the next ones are loaded.
        steps.clear()
        group.clear()


def _groups(updates: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Yield neighbours that can go in step, as many as may be held; others alone."""
    group: list[Encoded] = []
    held = 0
    for one in updates:
        if group and not (group[0].codec.in_step and one.codec.in_step):
            yield group
            group, held = [], 0
        group.append(one)
        held += memoryview(one.payload).nbytes
        del one  # else it is held while the next one is loaded
        if len(group) == AT_ONCE or held >= AT_ONCE_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group
