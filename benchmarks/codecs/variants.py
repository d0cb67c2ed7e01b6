"""The codecs that are measured, each with the parameters worth comparing, or its defaults."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from updates.codecs import Codec, create, names

_BITS = (1, 2, 4, 8)
#: Parameters to measure; a codec that is not here is measured with its defaults.
_PARAMS: dict[str, list[dict[str, object]]] = {
    "uniform": [
        *({"bits": bits, "stochastic": False} for bits in _BITS),
        *({"bits": bits} for bits in _BITS),
    ],
    "symmetric": [
        *({"bits": bits, "scope": "vector"} for bits in (2, 4, 8)),
        *({"bits": bits} for bits in (4, 8)),
        *({"bits": bits, "stochastic": False} for bits in (4, 8)),
    ],
    "stocq": [*({"bits": bits, "bucket": 0} for bits in _BITS), {}],
    "qsgd": [{"bits": 4, "norm": "max"}, {"bits": 4, "norm": "l2"}],
    "msq": [*({"bits": bits, "bucket": 0} for bits in _BITS), {}],
    "msq-v2": [{"bits": bits} for bits in _BITS],
    "sdq": [
        *({"bits": bits, "bucket": 0} for bits in _BITS),
        {"bits": 8, "order": 2},
        {"bits": 4},
    ],
    "betaq": [*({"bits": bits, "bucket": 0} for bits in _BITS), {"bits": 8}],
    "terngrad": [{}, {"clip": 0}],
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A codec with the parameters that are not its defaults."""

    codec_id: str
    params: dict[str, object] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a table calls it: ``symmetric bits=4``."""
        told = (f"{name}={_short(value)}" for name, value in self.params.items())
        return " ".join((self.codec_id, *told))

    def make(self) -> Codec:
        """Return the codec."""
        return create(self.codec_id, self.params)


def variants(codec_ids: Sequence[str] = ()) -> list[Variant]:
    """Return what is measured, of all codecs or of those that are named."""
    chosen = codec_ids or names()
    return [Variant(name, params) for name in chosen for params in _PARAMS.get(name, [{}])]


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
