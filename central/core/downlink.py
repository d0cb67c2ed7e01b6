"""What devices get of a new global model when its downlink is compressed.

All devices share one reference w^, the model that they hold. A round's strategy gives w; what
travels is ``C(w - w^ + r)``, where r is what earlier rounds left out (error feedback at the
server, Tang, Lian, Yu, Zhang, Liu, "DoubleSqueeze", ICML 2019, https://arxiv.org/abs/1905.05957;
one stream for all as in Sattler, Wiedemann, Mueller, Samek, IEEE TNNLS 2019,
https://arxiv.org/abs/1903.02891). The committed model is the one that devices then hold.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from central.core.strategies.base import F32, F64
from schemas.errors import PayloadError
from updates.arrays import check_finite, peak, spans
from updates.codecs import create, names
from updates.codecs.base import Codec
from updates.errors import CodecParameterError
from updates.layout import Layout
from updates.model_delta import apply_delta

#: What the server keeps for the downlink lies in the strategy's state under this.
PREFIX = "downlink."
RESIDUAL = f"{PREFIX}residual"

#: Of the residual: with all that a lazy task may hold it stays below SQLite's 10**9 bytes a row.
MAX_BYTES = 640 * 1024 * 1024
_VALUE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one round's model.

    Attributes:
        model: What devices hold after it, shape ``(n,)``.
        residual: What they still lack of the server's own model, shape ``(n,)``; None: nothing.
        payload: The difference that leads to ``model``; None: it is sent whole.
    """

    model: F32
    residual: F32 | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One step of the server's model.

    Attributes:
        base: What devices hold, shape ``(n,)``.
        new: What the strategy made of it, shape ``(n,)``.
        residual: What they lacked before, shape ``(n,)``; None: nothing.
    """

    base: F32
    new: F32
    residual: F32 | None = None

    def target(self, span: slice) -> F64:
        """Return the server's own model, in float64."""
        own = self.new[span].astype(np.float64)
        return own if self.residual is None else own + self.residual[span]


def compress(move: Move, codec: Codec, layout: Layout, rng: np.random.Generator) -> Sent:
    """Return what to send of a move; what cannot be coded is sent whole.

    ``sent.model + sent.residual`` is the server's own model but for the residual's rounding.
    """
    wanted = np.empty(layout.size, np.float32)
    with np.errstate(over="ignore"):
        for span in spans(0, layout.size):
            wanted[span] = move.target(span) - move.base[span]
    try:
        payload = codec.encode(wanted, layout, rng)
        model = apply_delta(move.base, payload, layout, codec)
    except PayloadError:
        return whole(move)
    with np.errstate(over="ignore"):
        for span in spans(0, layout.size):
            wanted[span] = move.target(span) - model[span]
    if not np.isfinite(peak(wanted)):  # a residual that is not would spoil all later rounds
        return whole(move)
    return Sent(model, wanted, payload)


def whole(move: Move) -> Sent:
    """Return the server's own model with all that devices lacked; nothing is left.

    Raises:
        NonFiniteError: It has a value that no float32 holds.
    """
    if move.residual is None:
        return Sent(move.new)
    model = np.empty_like(move.new)
    with np.errstate(over="ignore"):
        for span in spans(0, model.size):
            model[span] = move.target(span)
    check_finite(model, "model")
    return Sent(model)


def rng_of(task: str, number: int) -> np.random.Generator:
    """Return the source of a round's rounding noise: the same whenever it is done again."""
    digest = hashlib.sha256(f"{PREFIX}{task}|{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def check(codec_id: str, params: Mapping[str, object]) -> None:
    """Refuse a codec that is not known or does not go with a residual.

    Raises:
        ValueError: Names the field, the value and what is allowed.
    """
    try:
        codec = create(codec_id, params)
    except CodecParameterError as error:
        message = f"downlink.{error}"
        raise ValueError(message) from error
    if codec.feedback == "forbidden":
        message = (
            f"downlink.codec: {codec_id!r} does not go with error feedback, which the server "
            f"does; use one of {', '.join(_with_feedback())}"
        )
        raise ValueError(message)


def size_fault(parameters: int) -> str | None:
    """Return why a model of so many parameters cannot have a residual; None: it can."""
    needed = parameters * _VALUE_BYTES
    if needed <= MAX_BYTES:
        return None
    return (
        f"downlink: it keeps {parameters} parameters x {_VALUE_BYTES} bytes = {needed} bytes, "
        f"at most {MAX_BYTES} are allowed; use a smaller model or no downlink"
    )


def chain_to(model_sha256: str, newest_first: Sequence[tuple[str, str]]) -> Iterator[int]:
    """Yield which steps lead to a model, the last step first, until one is missing.

    Args:
        model_sha256: Where they lead.
        newest_first: Base and result of each step that is known.
    """
    for index, (base, result) in enumerate(newest_first):
        if result != model_sha256:
            return
        yield index
        model_sha256 = base


def _with_feedback() -> Iterator[str]:
    return (name for name in names() if create(name).feedback != "forbidden")
