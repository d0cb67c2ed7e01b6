"""What a program of a newer minor version would say: fields that nobody else knows yet."""

import struct

from transport.events import Outgoing

_LENGTH = struct.Struct(">I")
_FUTURE = b'"x_future":{"of":[1,2]},'
#: Neither frames nor JSON of persons: raw bytes.
_RAW = frozenset({"CHUNK", "BLOCK"})
_PLAIN = frozenset({"TASK_STATUS", "TASK_SUBMIT", "TASK_CONTROL", "CENTRAL_STATE"})


def spoken(message: Outgoing, *, is_newer: bool) -> bytes:
    """Return the bytes that go out, of a newer program with unknown fields in header and body."""
    payload = message.payload
    kind = message.topic.kind.name
    if not is_newer or kind in _RAW or not payload:
        return payload
    if kind in _PLAIN:
        return b"{" + _FUTURE + payload[1:]
    (length,) = _LENGTH.unpack_from(payload)
    header = payload[_LENGTH.size : _LENGTH.size + length]
    rest = payload[_LENGTH.size + length :]
    header = b"{" + _FUTURE + header[1:]
    header = header.replace(b'"body":{"', b'"body":{' + _FUTURE + b'"', 1)
    return _LENGTH.pack(len(header)) + header + rest
