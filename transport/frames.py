"""Writes this program's frames: who speaks, in which life, and the how-manieth frame it is."""

from collections.abc import Callable
from typing import cast

import numpy as np

from schemas.base import WireMessage
from schemas.envelope import Header, encode_frame

#: Of 64 random bits each.
_ID_WORDS = 2


class FrameWriter:
    """Numbers and identifies the frames of one sender; one thread uses it.

    Attributes:
        src: Device id, ``gw/REGION`` or ``central``.
        boot: This life's boot; assign to it after ``database.adopt_boot``.
    """

    def __init__(
        self, src: str, boot: int, rng: np.random.Generator, clock: Callable[[], float]
    ) -> None:
        self.src = src
        self.boot = boot
        self._rng = rng
        self._clock = clock
        self._seq = 0

    def frame(  # noqa: PLR0913 - each names one optional field of the header
        self,
        body: WireMessage,
        *,
        task: str | None = None,
        round_number: int | None = None,
        aud: str | None = None,
        corr: str | None = None,
        tail: bytes = b"",
    ) -> bytes:
        """Return the bytes of one frame, with a new random 128-bit id.

        Args:
            body: A message of ``schemas.messages.FRAMED``.
            task: Task that it is about.
            round_number: Round that it is about.
            aud: For whom it is, in the grammar of ``src``.
            corr: Id of the frame that this one answers.
            tail: Raw bytes after the header.

        Raises:
            FrameError: A part is larger than its limit.
            pydantic.ValidationError: A field of the header does not fit.
        """
        header = Header(
            type=cast("str", type(body).TYPE),  # type: ignore[attr-defined]
            id=self._rng.bit_generator.random_raw(_ID_WORDS).tobytes().hex(),
            ts=round(self._clock(), 3),
            src=self.src,
            aud=aud,
            boot=self.boot,
            seq=self._seq,
            task=task,
            round=round_number,
            corr=corr,
        )
        self._seq += 1
        return encode_frame(header, body, tail)
