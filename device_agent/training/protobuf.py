"""Reads the fields of a protocol buffer without its schema and without copies.

Encoding: https://protobuf.dev/programming-guides/encoding. A device has no library for ONNX files,
and looks into a graph before the runtime does.
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10
_CONTINUES = 0x80
_LOW_BITS = 0x7F

Value = int | memoryview


class ProtobufError(ValueError):
    """Bytes are not a protocol buffer, or a field is not of the expected kind."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field in its order.

    A value is an int (varints) or a view: of a string, a message, packed numbers or fixed bytes.

    Raises:
        ProtobufError: The message is cut off, or has a field of an unknown kind.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = _FIXED_SIZES.get(kind)
        if kind == _BYTES:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            reason = f"field {number} of kind {kind} at byte {at} is cut off or unknown"
            raise ProtobufError(reason)
        yield number, message[at : at + size]
        at += size


def integers(value: Value) -> list[int]:
    """Return the integers of a repeated field: one, or a packed run of them.

    Raises:
        ProtobufError: They are cut off.
    """
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def part(value: Value) -> memoryview:
    """Return a value that must be bytes.

    Raises:
        ProtobufError: It is a number.
    """
    if isinstance(value, int):
        reason = f"the number {value} where bytes are expected"
        raise ProtobufError(reason)
    return value


def text(value: Value) -> str:
    """Return a value that must be a string; what is not UTF-8 in it is replaced.

    Raises:
        ProtobufError: It is a number.
    """
    return bytes(part(value)).decode(errors="replace")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & _LOW_BITS) << (7 * index)
        if byte < _CONTINUES:
            return value, at + index + 1
    reason = f"the number at byte {at} is cut off or longer than {_MAX_VARINT_BYTES} bytes"
    raise ProtobufError(reason)
