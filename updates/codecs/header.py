"""The header that every encoded update begins with.

========  ======  ==========================================
bytes     type    field
========  ======  ==========================================
0-1       2s      magic ``FU``
2         u8      version, 1
3         u8      number of the codec, never reused
4-7       u32 LE  number of float32 values in the layout
8-11      u32 LE  CRC-32 (zlib) of the body
12-       bytes   body, as the codec's docstring describes it
========  ======  ==========================================

The header is checked before anything is allocated. The CRC finds damage, not malice: digests and
identity are the envelope's business.
"""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from typing_extensions import Buffer

from schemas.errors import PayloadError

MAGIC = b"FU"
VERSION = 1

_HEADER = struct.Struct("<2sBBII")
HEADER_BYTES = _HEADER.size


def pack(number: int, values: int, body: Sequence[Buffer]) -> bytes:
    """Return header and body; the body's parts are copied once, into the result."""
    crc = 0
    for part in body:
        crc = zlib.crc32(part, crc)
    return b"".join((_HEADER.pack(MAGIC, VERSION, number, values, crc), *body))


class Draft:
    """A payload that is written in place: memory that the system must fetch anew costs most.

    Attributes:
        body: The body's bytes, all zero, to be filled.
    """

    def __init__(self, body_bytes: int) -> None:
        self._file = io.BytesIO()
        self._file.seek(HEADER_BYTES + body_bytes - 1)
        self._file.write(b"\0")
        self._payload = np.frombuffer(self._file.getbuffer(), dtype=np.uint8)
        self.body = self._payload[HEADER_BYTES:]

    def finish(self, number: int, values: int) -> bytes:
        """Return header and body; nothing may be written after it."""
        crc = zlib.crc32(self.body.data)
        _HEADER.pack_into(self._payload.data, 0, MAGIC, VERSION, number, values, crc)
        del self.body, self._payload
        return self._file.getvalue()


def unpack(payload: Buffer, *, number: int, values: int, max_bytes: int) -> memoryview:
    """Return the body of a payload whose header holds.

    Args:
        payload: Bytes as received.
        number: The codec that must have written it.
        values: How many values the layout has.
        max_bytes: The longest payload that this codec writes for the layout.

    Raises:
        PayloadError: Length, magic, version, codec, number of values or checksum differ; the text
            names both sides.
    """
    view = memoryview(payload).cast("B")
    if not HEADER_BYTES <= len(view) <= max_bytes:
        message = f"update: {len(view)} bytes, {HEADER_BYTES} to {max_bytes} are possible"
        raise PayloadError(message)
    magic, version, codec, count, crc = _HEADER.unpack_from(view)
    _require("magic", magic, MAGIC)
    _require("version", version, VERSION)
    _require("codec number", codec, number)
    _require("number of values", count, values)
    body = view[HEADER_BYTES:]
    _require("CRC-32", crc, zlib.crc32(body))
    return body


def require_body_length(got: int, expected: int) -> None:
    """Refuse a body that is not exactly as long as it must be.

    Raises:
        PayloadError: The lengths differ; the text names both.
    """
    _require("body length in bytes", got, expected)


def _require(what: str, got: object, expected: object) -> None:
    if got != expected:
        message = f"update: {what} is {got!r}, expected {expected!r}"
        raise PayloadError(message)
