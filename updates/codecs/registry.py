"""Codecs by id: a new one is a file beside this one, and is found here by itself."""

import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from inspect import isabstract, isclass

from updates.codecs.base import Codec
from updates.errors import CodecParameterError


def _codecs() -> Iterator[type[Codec]]:
    """Yield the codecs of the files in this package; each belongs to the file that defines it."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(sys.modules[package].__path__, f"{package}."):
        if module.name == __name__:
            continue
        for found in vars(import_module(module.name)).values():
            is_codec = isclass(found) and issubclass(found, Codec) and not isabstract(found)
            if is_codec and found.__module__ == module.name:
                yield found


_CODECS: Mapping[str, type[Codec]] = {codec.codec_id: codec for codec in _codecs()}


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
