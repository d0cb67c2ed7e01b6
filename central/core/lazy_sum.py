"""Lazily aggregated updates at central: every device's vector, kept in the strategy's state.

A round's contributions are innovations or skips. They move the vectors of their devices, and the
strategy is then given the vectors of *all* devices, also of those that skipped or were absent: a
skipped update counts as it was, never twice and never not at all. The rule of the devices is fed
from here as well: the squared norms of the last aggregates, and how many examples stand behind the
vectors. See ``updates.lazy``; Sun et al., https://arxiv.org/abs/1909.07588, equations 4 and 7.

All of it lies in the strategy's state under names that begin with ``lazy.``, so it is committed
with the model, restored with it, and computed again by the audit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from central.core.strategies.base import (
    F32,
    Contribution,
    Contributions,
    State,
    Strategy,
    StrategyError,
    run,
)
from updates import lazy
from updates.codecs import create
from updates.codecs.base import Codec
from updates.codecs.laq import LaqCodec
from updates.feedback import REACH_ROUNDS
from updates.layout import Layout
from updates.partial_sum import Accumulator

PREFIX = "lazy."
_VECTOR, _EXAMPLES, _SILENT = f"{PREFIX}vector.", f"{PREFIX}examples.", f"{PREFIX}silent."
_ENERGIES = f"{PREFIX}energies"

#: The vectors of all devices of one task, as central keeps them in one row.
MAX_BYTES = 256 * 1024 * 1024
_VALUE_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What central holds of one device.

    Attributes:
        vector: Q, shape ``(n,)``; the same bits as the device's.
        examples: The last told number of examples.
        silent: In how many rounds since then the device was not counted.
    """

    vector: F32
    examples: int
    silent: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What the next round's devices are told.

    Attributes:
        threshold: See ``updates.lazy.threshold``.
        examples: Of all devices that are held.
        clients: How many those are.
    """

    threshold: float
    examples: int
    clients: int


def size_fault(clients: int, parameters: int) -> str | None:
    """Return why so many clients cannot be held; None: they can."""
    needed = clients * parameters * _VALUE_BYTES
    if needed <= MAX_BYTES:
        return None
    return (
        f"codec: a lazy task keeps {clients} clients x {parameters} parameters x {_VALUE_BYTES} "
        f"bytes = {needed} bytes, at most {MAX_BYTES} are allowed; "
        "use another codec, fewer clients or a smaller model"
    )


def may_skip(codec: Codec) -> bool:
    """Tell whether devices may skip rounds with a codec, so that they must be told how."""
    return isinstance(codec, LaqCodec) and codec.skips


def run_lazily(
    strategy: Strategy, state: State, contributions: Contributions, *, weighted: bool = True
) -> tuple[State, F32, Terms]:
    """Return what a strategy makes of the vectors of all devices after a round.

    Args:
        strategy: The task's.
        state: As this function left it after the round before; the strategy's own at first.
        contributions: Of this round: innovations with their references.
        weighted: Whether the strategy weighs each update by its examples.

    Returns:
        The next state, the next model, and what the next round's devices are told.

    Raises:
        StrategyError: The strategy failed, or what must be held is too much.
        PayloadError: A contribution is not one that its codec writes.
    """
    own, held, energies = _take_apart(state)
    held = advance(held, contributions)
    everyone = _everyone(held, contributions)
    own, model = run(strategy, own, everyone)
    strange = next((name for name in own if name.startswith(PREFIX)), None)
    if strange is not None:
        message = f"strategy gave a state {strange!r}: names with {PREFIX!r} are not its own"
        raise StrategyError(message)
    energies = np.append(energies, _energy(everyone, weighted=weighted))[-lazy.HISTORY :]
    examples = sum(one.examples for one in held.values())
    terms = Terms(lazy.threshold(energies.tolist(), len(held)), examples, len(held))
    return {**own, **_put_together(held), _ENERGIES: energies}, model, terms


def advance(held: Mapping[str, Held], contributions: Contributions) -> dict[str, Held]:
    """Return what is held after a round, by device.

    A device that was counted in none of the last ``REACH_ROUNDS`` rounds is forgotten: central
    tells it then that it has no reference, and it begins anew.

    Raises:
        StrategyError: A contribution builds on a vector that is not held, or it is too much.
    """
    after = {device: _silent(one) for device, one in held.items()}
    after = {device: one for device, one in after.items() if one.silent < REACH_ROUNDS}
    for one in contributions:
        after[one.device] = Held(_moved(held, one), one.num_examples)
    fault = size_fault(len(after), contributions.model.size)
    if fault is not None:
        raise StrategyError(fault)
    return dict(sorted(after.items()))


def _silent(held: Held) -> Held:
    return Held(held.vector, held.examples, held.silent + 1)


def _moved(held: Mapping[str, Held], one: Contribution) -> F32:
    if one.reference and one.device not in held:
        message = f"{one.device}: builds on round {one.reference}, of which no vector is held"
        raise StrategyError(message)
    before = held[one.device].vector if one.reference else np.zeros(one.layout.size, np.float32)
    return lazy.advance(before, one.decode())


def _everyone(held: Mapping[str, Held], contributions: Contributions) -> Contributions:
    layout = contributions[0].layout
    metrics = {one.device: one.metrics for one in contributions}
    codec = create("raw-f32")
    rng = np.random.default_rng(0)  # raw-f32 draws nothing from it

    def loader(vector: F32) -> Callable[[], bytes]:
        return lambda: codec.encode(vector, layout, rng)

    items = tuple(
        Contribution(
            device, one.examples, layout, codec, loader(one.vector), metrics.get(device, {})
        )
        for device, one in held.items()
    )
    return Contributions(contributions.model, items, kernels=contributions.kernels)


def _energy(everyone: Contributions, *, weighted: bool) -> float:
    """Return the squared norm of the mean of all vectors, as the strategy weighs them."""
    layout: Layout = everyone[0].layout
    total = Accumulator(layout.size)
    for one in everyone:
        total.add(one.load(), layout, one.codec, one.num_examples if weighted else 1)
    return lazy.energy(total.mean())


def _take_apart(state: State) -> tuple[State, dict[str, Held], np.ndarray]:
    own = {name: array for name, array in state.items() if not name.startswith(PREFIX)}
    devices = (name.removeprefix(_VECTOR) for name in state if name.startswith(_VECTOR))
    held = {
        device: Held(
            state[_VECTOR + device].astype(np.float32, copy=False),
            int(state[_EXAMPLES + device][0]),
            int(state[_SILENT + device][0]),
        )
        for device in devices
    }
    return own, held, state.get(_ENERGIES, np.zeros(0, dtype=np.float64))


def _put_together(held: Mapping[str, Held]) -> State:
    state: State = {}
    for device, one in held.items():
        state[_VECTOR + device] = one.vector
        state[_EXAMPLES + device] = np.array([one.examples], dtype=np.float64)
        state[_SILENT + device] = np.array([one.silent], dtype=np.float64)
    return state
