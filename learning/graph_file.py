"""A training graph as the bytes that travel: one zlib stream (RFC 1950) of an ONNX file.

The layout of a graph is repetitive, so the stream is a quarter or a fifth of the file; weights in
it hardly shrink. Its digest names the graph; the bytes are made once, by central, and are never
compressed again on the way.

A stream of ``packed`` bytes unpacks to at most ``unpacked_limit(packed)`` bytes. A device counts
with that before it has the stream, and refuses one that holds more. A model that shrinks too well
(a base of zeros) is therefore stored without compression.
"""

import zlib

from schemas.errors import PayloadError
from schemas.limits import MIB

#: No graph unpacks to more; protocol buffers end at 2 GiB.
MAX_UNPACKED_BYTES = 2047 * MIB
_LEVEL, _NO_COMPRESSION = 9, 0
#: (times the stream, bytes on top) for small graphs, and for those with weights in them.
_BOUNDS = (16, MIB), (4, 48 * MIB)


def unpacked_limit(packed: int) -> int:
    """Return the most bytes that a stream of ``packed`` bytes may unpack to."""
    return min(MAX_UNPACKED_BYTES, *(factor * packed + more for factor, more in _BOUNDS))


def encode_graph(model: bytes) -> bytes:
    """Return the stream of a serialized ONNX model.

    Args:
        model: The bytes of the ``ModelProto``, at least one.

    Raises:
        PayloadError: There is nothing to encode, or more than ``MAX_UNPACKED_BYTES``.
    """
    if not model:
        message = "graph: empty, an ONNX model is needed"
        raise PayloadError(message)
    if len(model) > MAX_UNPACKED_BYTES:
        message = f"graph: {len(model)} bytes, the limit is {MAX_UNPACKED_BYTES}"
        raise PayloadError(message)
    stream = zlib.compress(model, _LEVEL)
    if len(model) <= unpacked_limit(len(stream)):
        return stream
    return zlib.compress(model, _NO_COMPRESSION)


def decode_graph(data: bytes, max_bytes: int) -> bytes:
    """Return the serialized ONNX model in a stream; no more than ``max_bytes`` is ever unpacked.

    Whether the bytes are a model is not looked at.

    Args:
        data: The stream, to its last byte.
        max_bytes: The largest model accepted, at least 1.

    Raises:
        PayloadError: Not one whole zlib stream, bytes follow it, it is empty, or it holds more
            than ``max_bytes``.
    """
    stream = zlib.decompressobj()
    try:
        model = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        message = f"graph: not a zlib stream: {error}"
        raise PayloadError(message) from error
    if len(model) > max_bytes:
        message = f"graph: more than {max_bytes} bytes, which is the limit"
        raise PayloadError(message)
    if not stream.eof:
        message = f"graph: the stream of {len(data)} bytes ends before its end mark"
        raise PayloadError(message)
    if stream.unused_data or not model:
        message = f"graph: {len(model)} bytes, and {len(stream.unused_data)} after the stream"
        raise PayloadError(message)
    return model
