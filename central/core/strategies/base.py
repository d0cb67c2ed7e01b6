"""What an aggregation rule is, and what it is given.

A strategy is two functions: ``init`` gives its first state, ``apply`` turns the contributions of
one round into the next state and the next global model. Both are pure: the same contributions in
the same order give the same bits, so a crash in between only repeats the work.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from updates.accumulation import Encoded, add_all
from updates.codecs.base import Codec
from updates.kernels import Kernels
from updates.layout import Layout

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
#: What a strategy keeps between rounds; stored with the model, in one transaction.
State = dict[str, NDArray[np.float32] | NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One client's accepted update; it is decoded when asked, one at a time."""

    device: str
    num_examples: int
    layout: Layout
    codec: Codec
    load: Callable[[], bytes]
    metrics: dict[str, float] = field(default_factory=dict)
    #: The device's round that it builds on, where its codec needs one; 0: none.
    reference: int = 0

    def add_into(self, accumulator: F64, weight: float) -> None:
        """Add ``weight`` times the update to ``accumulator``, shape ``(layout.size,)``."""
        self.codec.add_into(accumulator, self.load(), self.layout, weight)

    def decode(self) -> F32:
        """Return the update as a vector of shape ``(layout.size,)``."""
        return self.codec.decode(self.load(), self.layout)


@dataclass(frozen=True, slots=True)
class Contributions(Sequence[Contribution]):
    """The frozen contributions of one round, sorted by device.

    Attributes:
        model: The global model that the clients started from, shape ``(n,)``, not writable.
        items: One a client.
        scale: Factor of the server's step, by ``core.budget.selection_scale``.
        kernels: Compiled loops for sums; None: numpy, with the same bits.
    """

    model: F32
    items: tuple[Contribution, ...]
    scale: float = 1.0
    kernels: Kernels | None = None

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.items)

    def __iter__(self) -> Iterator[Contribution]:
        """Go through the clients in device order."""
        return iter(self.items)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        """Return one client's contribution."""
        return self.items[index]

    def add_into(self, accumulator: F64, weights: Sequence[float]) -> None:
        """Add each update times its weight, in device order; a few are loaded at a time.

        Args:
            accumulator: Shape ``(layout.size,)``.
            weights: One a client.
        """
        pairs = zip(self.items, weights, strict=True)
        loaded = (Encoded(one.codec, one.load(), weight) for one, weight in pairs)
        if self.items:
            add_all(accumulator, loaded, self.items[0].layout, self.kernels)


class Strategy(Protocol):
    """An aggregation rule."""

    def init(self, model: F32) -> State:
        """Return the state before the first round of a task."""

    def apply(self, state: State, contributions: Contributions) -> tuple[State, F32]:
        """Return the next state and the next global model, shape ``(n,)``.

        ``state`` and ``contributions.model`` are not changed. Raising abandons the round.
        """


class StrategyError(Exception):
    """A strategy raised or gave what is not a model; the round is abandoned."""


def run(strategy: Strategy, state: State, contributions: Contributions) -> tuple[State, F32]:
    """Return what ``strategy`` makes of a round, checked.

    Raises:
        StrategyError: It raised, or its model has another shape or a value that is not finite.
    """
    try:
        state, model = strategy.apply(state, contributions)
    except Exception as error:
        message = f"strategy failed: {type(error).__name__}: {error}"
        raise StrategyError(message) from error
    if not isinstance(model, np.ndarray) or model.shape != contributions.model.shape:
        shape = getattr(model, "shape", type(model).__name__)
        message = f"strategy gave {shape}, the model has shape {contributions.model.shape}"
        raise StrategyError(message)
    model = np.ascontiguousarray(model, dtype=np.float32)
    if not np.isfinite(model).all():
        message = f"strategy gave {int((~np.isfinite(model)).sum())} values that are not finite"
        raise StrategyError(message)
    return state, model
