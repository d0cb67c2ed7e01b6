"""What messages are made of: an object by its content, and numbers and texts within limits."""

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import WireMessage
from schemas.ids import Sha256
from schemas.limits import (
    DEFAULT_CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_INLINE_BYTES,
    MAX_OBJECT_BYTES,
    MIN_CHUNK_BYTES,
)

Text = Annotated[str, StringConstraints(max_length=500)]
ChunkIndex = Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]
ByteCount = Annotated[int, Field(ge=0, lt=1 << 53)]
RoundNumber = Annotated[int, Field(ge=0, lt=1 << 31)]


class ObjectManifest(WireMessage):
    """A large object by its content: what a receiver needs to fetch and to check it.

    The frame's tail is the object itself when ``inline``, else the SHA-256 (32 raw bytes) of
    each of its chunks, one after another.
    """

    sha256: Sha256
    size: int = Field(ge=1, le=MAX_OBJECT_BYTES, description="bytes")
    chunk_bytes: int = Field(default=DEFAULT_CHUNK_BYTES, ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)
    inline: bool = False

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.size // self.chunk_bytes)

    def tail_bytes(self) -> int:
        """Return the length that the frame's tail must have."""
        return self.size if self.inline else 32 * self.chunks

    def fault(self) -> str | None:
        """Return what is wrong with the numbers taken together, if anything."""
        if self.inline and self.size > MAX_INLINE_BYTES:
            return f"size: {self.size} bytes inline, at most {MAX_INLINE_BYTES}"
        if self.chunks > MAX_CHUNKS:
            return f"size: {self.chunks} chunks, at most {MAX_CHUNKS}"
        return None
