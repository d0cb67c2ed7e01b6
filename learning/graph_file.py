"""A training graph as the bytes that travel: one zlib stream (RFC 1950) of an ONNX file.

The layout of a graph is repetitive, so the stream is a quarter of the file. Its digest names the
graph; the bytes are made once, by central, and are never compressed again on the way.
"""

import zlib

from schemas.errors import PayloadError

_LEVEL = 9


def encode_graph(model: bytes) -> bytes:
    """Return the stream of a serialized ONNX model.

    Args:
        model: The bytes of the ``ModelProto``, at least one.

    Raises:
        PayloadError: There is nothing to encode.
    """
    if not model:
        message = "graph: empty, an ONNX model is needed"
        raise PayloadError(message)
    return zlib.compress(model, _LEVEL)


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
