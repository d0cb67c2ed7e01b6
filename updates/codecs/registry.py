"""Codecs by id: a new one is a file beside this one and a line here."""

from collections.abc import Mapping
from dataclasses import fields

from updates.codecs.base import Codec
from updates.codecs.fp16 import Fp16Codec
from updates.codecs.int8 import Int8Codec
from updates.codecs.raw_f32 import RawF32Codec
from updates.codecs.topk import TopKCodec
from updates.errors import CodecParameterError

_CODECS: Mapping[str, type[Codec]] = {
    codec.codec_id: codec
    for codec in (
        RawF32Codec,
        Fp16Codec,
        Int8Codec,
        TopKCodec,
    )
}


def names() -> tuple[str, ...]:
    """Return the ids of all codecs, sorted."""
    return tuple(sorted(_CODECS))


def create(codec_id: str, params: Mapping[str, object] | None = None) -> Codec:
    """Return a codec with its parameters; those not given have their defaults.

    Raises:
        CodecParameterError: No such codec, no such parameter, or a value out of its range.
    """
    codec = _CODECS.get(codec_id)
    if codec is None:
        raise CodecParameterError(
            field="codec", value=codec_id, limit=f"must be one of {', '.join(names())}"
        )
    given = dict(params or {})
    known = parameters(codec)
    for name, value in given.items():
        if name not in known:
            allowed = ", ".join(known) or "no parameters"
            raise CodecParameterError(name, value, f"not known, {codec_id} takes {allowed}")
    return codec(**given)


def parameters(codec: type[Codec]) -> tuple[str, ...]:
    """Return the names of a codec's parameters."""
    return tuple(field.name for field in fields(codec))
