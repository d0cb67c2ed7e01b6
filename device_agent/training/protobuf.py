"""Reads the fields of a protocol buffer without copies, as strictly as no serializer needs.

Encoding: https://protobuf.dev/programming-guides/encoding. A device has no library for ONNX files,
and looks into a graph before the runtime does. The runtime must see in the bytes what was seen
here, so whatever parsers treat differently is refused: unknown fields, fields of another kind than
their own, a field that may come once and comes again, numbers that are cut to fewer bits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES, _MAX_VARINT = 10, (1 << 64) - 1
_MAX_TAG_BYTES, _MAX_TAG = 5, (1 << 32) - 1
_MAX_INT32 = (1 << 31) - 1
_CONTINUES = 0x80
_LOW_BITS = 0x7F

Value = int | memoryview


class ProtobufError(ValueError):
    """Bytes are not a protocol buffer, or not one of the expected form."""


class UnknownFieldError(ProtobufError):
    """A message has a field that its form does not.

    Attributes:
        form: Name of the form.
        number: The field's.
    """

    def __init__(self, form: str, number: int) -> None:
        super().__init__(f"{form}: field {number} is not known here")
        self.form = form
        self.number = number


@dataclass(frozen=True, slots=True)
class Form:
    """What a message may hold.

    Attributes:
        name: What it is called in errors.
        one: Number -> kind on the wire, of fields that come at most once.
        many: The same of repeated fields; numbers may come packed, too.
    """

    name: str
    one: Mapping[int, int] = field(default_factory=dict)
    many: Mapping[int, int] = field(default_factory=dict)

    def check(self, number: int, kind: int, seen: set[int]) -> None:
        """Refuse a field that does not belong here; ``seen`` holds those that came before."""
        own = self.one.get(number, self.many.get(number))
        if own is None:
            raise UnknownFieldError(self.name, number)
        if kind != own and not (kind == BYTES and number in self.many):
            reason = f"{self.name}: field {number} is of kind {kind}, not {own}"
            raise ProtobufError(reason)
        if number in seen and number in self.one:
            reason = f"{self.name}: field {number} comes more than once"
            raise ProtobufError(reason)
        seen.add(number)


def fields(message: memoryview, form: Form) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field in its order.

    A value is an int (varints) or a view: of a string, a message, packed numbers or fixed bytes.

    Raises:
        ProtobufError: The message is cut off, or not of this form.
    """
    at, seen = 0, set[int]()
    while at < len(message):
        number, kind, at = _tag(message, at)
        form.check(number, kind, seen)
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = _FIXED_SIZES.get(kind, 0)
        if kind == BYTES:
            size, at = _varint(message, at)
        if at + size > len(message):
            reason = f"{form.name}: field {number} at byte {at} is cut off"
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


def small(value: Value) -> int:
    """Return a value that must be an enum's or an int32, not negative.

    Raises:
        ProtobufError: It is not; parsers would cut it to 32 bits.
    """
    if not isinstance(value, int) or value > _MAX_INT32:
        reason = "a number of more than 31 bits where an enum's is expected"
        raise ProtobufError(reason)
    return value


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
    """Return a value that must be a string.

    Raises:
        ProtobufError: It is a number, or not UTF-8.
    """
    try:
        return bytes(part(value)).decode()
    except UnicodeDecodeError as error:
        reason = f"a string is not UTF-8: {error.reason}"
        raise ProtobufError(reason) from error


def _tag(message: memoryview, at: int) -> tuple[int, int, int]:
    """Return number, kind, and where the field goes on."""
    tag, after = _varint(message, at)
    if tag > _MAX_TAG or after - at > _MAX_TAG_BYTES:
        reason = f"the tag at byte {at} is longer than {_MAX_TAG_BYTES} bytes or 32 bits"
        raise ProtobufError(reason)
    return tag >> 3, tag & 7, after


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & _LOW_BITS) << (7 * index)
        if byte < _CONTINUES and value <= _MAX_VARINT:
            return value, at + index + 1
    reason = f"the number at byte {at} is cut off or longer than {_MAX_VARINT_BYTES} bytes"
    raise ProtobufError(reason)
