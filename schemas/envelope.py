"""Bytes <-> (header, body, tail): the frame that programs send each other.

Wire format, all lengths unsigned 32-bit big-endian::

    header length | header | signature length | signature | tail

The header is JSON of at most 64 KiB. The signature may be empty; it covers the header's bytes as
they were sent, and the header names the tail's SHA-256, so a relay forwards both untouched.
The tail is raw bytes: an object that fits one packet, or the digests of its chunks.
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import cache
from typing import Generic, Literal, TypeVar

from pydantic import Field, ValidationError

from schemas.base import WireMessage, explain
from schemas.errors import FrameError, MessageError, UnsupportedVersionError
from schemas.ids import Sha256, TaskId
from schemas.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURE_BYTES

PROTOCOL_VERSION: Literal[1] = 1
_LENGTH = struct.Struct(">I")
_SENDER = r"^[a-z0-9][a-z0-9-]{0,31}(/[a-z0-9][a-z0-9-]{0,31})?\z"

BodyT = TypeVar("BodyT", bound=WireMessage)


class Header(WireMessage):
    """What every frame says of itself; the body is read apart, by ``type``."""

    v: Literal[1] = PROTOCOL_VERSION
    type: str = Field(pattern=r"^[a-z]+\.[a-z]+\z", max_length=32)
    id: str = Field(pattern=r"^[0-9a-f]{16,64}\z", description="random; the key of deduplication")
    ts: float = Field(ge=0, description="sender's clock, unix seconds; never decides anything")
    src: str = Field(pattern=_SENDER, description="device id, gw/REGION or central")
    aud: str | None = Field(default=None, pattern=_SENDER)
    boot: int = Field(ge=0, lt=1 << 53)
    seq: int = Field(ge=0, lt=1 << 53)
    task: TaskId | None = None
    round: int | None = Field(default=None, ge=0, lt=1 << 31)
    corr: str | None = Field(default=None, max_length=64)
    reply: str | None = Field(default=None, max_length=256)
    tail_sha256: Sha256 | None = None


class _Framed(Header, Generic[BodyT]):
    body: BodyT


@cache
def _framed(model: type[BodyT]) -> type[_Framed[BodyT]]:
    """Return the reader of one type of frame; pydantic itself forgets it when memory is swept."""
    return _Framed[model]  # type: ignore[valid-type]


class _Version(WireMessage):
    v: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose lengths, header and digest were checked; its body is not yet read.

    Attributes:
        header: The header without its body.
        header_bytes: The header exactly as it was sent.
        signature: The signature as it was sent, possibly empty.
        tail: The tail; its SHA-256 is the header's ``tail_sha256``.
    """

    header: Header
    header_bytes: bytes
    signature: bytes
    tail: bytes

    def body(self, model: type[BodyT]) -> BodyT:
        """Return the body as ``model``.

        Raises:
            MessageError: The body does not fit; the text names field, value and limit.
        """
        framed: type[_Framed[BodyT]] = _framed(model)
        try:
            return framed.model_validate_json(self.header_bytes).body
        except ValidationError as error:
            raise MessageError(explain(error)) from error

    def encode(self) -> bytes:
        """Return the frame's bytes, header and signature as they were received."""
        return join(self.header_bytes, self.signature, self.tail)


def encode_frame(
    header: Header, body: WireMessage, tail: bytes = b"", signature: bytes = b""
) -> bytes:
    """Return the bytes of one frame; ``tail_sha256`` is filled in here.

    Fields of the body that have their default are left out: what a reader fills in is the same,
    because a default never changes within a version of the protocol.

    Raises:
        FrameError: A part is larger than its limit.
    """
    digest = hashlib.sha256(tail).hexdigest() if tail else None
    if header.tail_sha256 != digest:
        header = header.model_copy(update={"tail_sha256": digest})
    text = header.model_dump_json(exclude_none=True)
    told = body.model_dump_json(exclude_none=True, exclude_defaults=True)
    head = f'{text[:-1]},"body":{told}}}'.encode()
    return join(head, signature, tail)


def join(header_bytes: bytes, signature: bytes, tail: bytes) -> bytes:
    """Return the frame of three given parts.

    Raises:
        FrameError: A part is larger than its limit.
    """
    _check("header", len(header_bytes), MAX_HEADER_BYTES)
    _check("signature", len(signature), MAX_SIGNATURE_BYTES)
    whole = b"".join(
        (
            _LENGTH.pack(len(header_bytes)),
            header_bytes,
            _LENGTH.pack(len(signature)),
            signature,
            tail,
        )
    )
    _check("frame", len(whole), MAX_PAYLOAD_BYTES)
    return whole


def decode_frame(data: bytes) -> Frame:
    """Return the frame in ``data``; sizes are checked before anything is parsed.

    Raises:
        FrameError: Lengths, limits or the tail's digest do not hold.
        UnsupportedVersionError: The sender speaks another major version.
        MessageError: The header does not fit; unknown fields in it are ignored.
    """
    _check("frame", len(data), MAX_PAYLOAD_BYTES)
    header_bytes, rest = _part(data, 0, "header", MAX_HEADER_BYTES)
    signature, rest = _part(data, rest, "signature", MAX_SIGNATURE_BYTES)
    tail = data[rest:]
    header = _header(header_bytes)
    digest = hashlib.sha256(tail).hexdigest() if tail else None
    if digest != header.tail_sha256:
        message = f"tail_sha256: the tail has {digest}, the header says {header.tail_sha256}"
        raise FrameError(message)
    return Frame(header, header_bytes, signature, tail)


def _header(header_bytes: bytes) -> Header:
    try:
        version = _Version.model_validate_json(header_bytes).v
        if version != PROTOCOL_VERSION:
            raise UnsupportedVersionError(version)
        return Header.model_validate_json(header_bytes)
    except ValidationError as error:
        raise MessageError(explain(error)) from error


def _part(data: bytes, start: int, name: str, limit: int) -> tuple[bytes, int]:
    body = start + _LENGTH.size
    if len(data) < body:
        message = f"{name}: the frame ends after {len(data)} bytes, before its length"
        raise FrameError(message)
    (length,) = _LENGTH.unpack_from(data, start)
    _check(name, length, limit)
    if len(data) < body + length:
        message = f"{name}: {length} bytes announced, {len(data) - body} there"
        raise FrameError(message)
    return bytes(data[body : body + length]), body + length


def _check(name: str, size: int, limit: int) -> None:
    if size > limit:
        message = f"{name}: {size} bytes, at most {limit} are allowed"
        raise FrameError(message)
