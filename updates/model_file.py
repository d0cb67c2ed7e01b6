"""A global model as the bytes of a safetensors file, without copies.

The file is a header (its length, uint64 LE; JSON, padded with spaces so that the data begins at a
multiple of 8) and a data section, which is the flat float32 vector of the layout, little endian.
Any safetensors reader opens it. What is read back is stricter than the format: float32 only, and
the tensors lie in the data section sorted by name, as the safetensors library writes them.
Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
import struct

import numpy as np
from typing_extensions import Buffer

from schemas.errors import PayloadError
from schemas.limits import MIB
from updates.arrays import F32
from updates.layout import MAX_VALUES, RESERVED_NAME, Layout

MAX_MODEL_HEADER_BYTES = MIB

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_ITEM_BYTES = 4
_OFFSETS = 2
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_Json = dict[str, object]


def model_header(layout: Layout) -> bytes:
    """Return what precedes the vector in a model file; depends on the layout alone.

    Raises:
        PayloadError: The header would be larger than 1 MiB.
    """
    slices = layout.slices()
    entries = {
        tensor.name: {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": _byte_range(slices[tensor.name]),
        }
        for tensor in layout.tensors
    }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text + b" " * (-len(text) % _ALIGNMENT)
    _check_header_length(len(padded))
    return _LENGTH.pack(len(padded)) + padded


def encode_model(layout: Layout, vector: F32) -> bytes:
    """Return a model file; the vector is copied once, into the result.

    A caller that writes to a file may write ``model_header`` and then the vector instead.

    Args:
        layout: Names and shapes.
        vector: The parameters, shape ``(layout.size,)``.

    Raises:
        PayloadError: The vector does not fit the layout, or the header is too large.
    """
    layout.check_vector(vector)
    data = np.ascontiguousarray(vector, dtype="<f4")
    return b"".join((model_header(layout), data.data))


def decode_model(buffer: Buffer) -> tuple[Layout, F32]:
    """Return the layout of a model file and its parameters; nothing is copied.

    Whether the parameters are finite is not looked at: see ``updates.arrays.check_finite``.

    Args:
        buffer: The whole file: bytes, a memoryview or a memory map, which must outlive the vector.

    Returns:
        The layout, and a read-only vector of shape ``(layout.size,)`` that lies in ``buffer``.

    Raises:
        PayloadError: The bytes are not such a file, down to the last byte.
    """
    view = memoryview(buffer).cast("B")
    start = _data_start(view)
    entries = _parse_header(bytes(view[_LENGTH.size : start]))
    layout = _layout_of(entries)
    if len(view) != start + _ITEM_BYTES * layout.size:
        message = (
            f"model file: {len(view)} bytes, its header asks for "
            f"{start + _ITEM_BYTES * layout.size}"
        )
        raise PayloadError(message)
    vector = np.frombuffer(view, dtype="<f4", offset=start).astype(np.float32, copy=False)
    vector.flags.writeable = False
    return layout, vector


def _byte_range(values: slice) -> list[int]:
    return [_ITEM_BYTES * values.start, _ITEM_BYTES * values.stop]


def _check_header_length(length: int) -> None:
    if length > MAX_MODEL_HEADER_BYTES:
        message = f"model header: {length} bytes, at most {MAX_MODEL_HEADER_BYTES} are allowed"
        raise PayloadError(message)


def _data_start(view: memoryview) -> int:
    if len(view) < _LENGTH.size:
        message = f"model file: {len(view)} bytes, at least {_LENGTH.size} are needed"
        raise PayloadError(message)
    (length,) = _LENGTH.unpack_from(view)
    _check_header_length(length)
    if len(view) < _LENGTH.size + length:
        message = f"model header: {length} bytes announced, the file has {len(view)} in all"
        raise PayloadError(message)
    return _LENGTH.size + int(length)


def _parse_header(text: bytes) -> _Json:
    if not text.startswith(b"{"):
        message = "model header: does not begin with '{'"
        raise PayloadError(message)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        message = f"model header: not JSON: {error}"
        raise PayloadError(message) from error
    return {name: entry for name, entry in header.items() if name != RESERVED_NAME}


def _unique(pairs: list[tuple[str, object]]) -> _Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a name occurs twice"
        raise ValueError(message)
    return found


def _layout_of(entries: _Json) -> Layout:
    parsed = {name: _parse_entry(name, entry) for name, entry in entries.items()}
    layout = Layout.of({name: shape for name, (shape, _) in parsed.items()})
    for name, values in layout.slices().items():
        if parsed[name][1] != _byte_range(values):
            message = (
                f"tensor {name!r}: data_offsets {parsed[name][1]}, "
                f"without gaps and sorted by name they are {_byte_range(values)}"
            )
            raise PayloadError(message)
    return layout


def _parse_entry(name: str, entry: object) -> tuple[list[int], list[int]]:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        message = f"tensor {name[:40]!r}: must have exactly {', '.join(sorted(_FIELDS))}"
        raise PayloadError(message)
    if entry["dtype"] != "F32":
        message = f"tensor {name[:40]!r}: dtype {str(entry['dtype'])[:40]!r}, only F32 is allowed"
        raise PayloadError(message)
    shape, offsets = _sizes(name, entry["shape"]), _sizes(name, entry["data_offsets"])
    if len(offsets) != _OFFSETS:
        message = f"tensor {name[:40]!r}: {len(offsets)} data_offsets, {_OFFSETS} are needed"
        raise PayloadError(message)
    return shape, offsets


def _sizes(name: str, value: object) -> list[int]:
    limit = _ITEM_BYTES * MAX_VALUES
    if not isinstance(value, list) or not all(
        type(item) is int and 0 <= item <= limit for item in value
    ):
        message = f"tensor {name[:40]!r}: sizes must be integers from 0 to {limit}"
        raise PayloadError(message)
    return value
