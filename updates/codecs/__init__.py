"""Encodings of one update: one codec a file, all of them in ``registry``."""

from updates.codecs.base import Codec
from updates.codecs.registry import create, names

__all__ = ["Codec", "create", "names"]
