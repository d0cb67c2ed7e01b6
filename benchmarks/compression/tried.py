"""Which settings are played: every codec of the registry once, the best ones with three seeds."""

from benchmarks.compression.settings import BASELINE, Coding, Setting
from updates.codecs import names


def every_codec() -> tuple[Setting, ...]:
    """Return one setting for each codec of the registry, with its defaults."""
    return tuple(Setting(Coding(name)) for name in names())


def _stc(fraction: float) -> Coding:
    return Coding("stc", {"fraction": fraction})


#: One seed, besides.
ONCE: tuple[Setting, ...] = (
    Setting(Coding("topk", {"fraction": 0.003})),
    Setting(_stc(0.01)),
    Setting(_stc(0.001), rounds=200),
    Setting(Coding("ecsq", {"bits": 0.05}), rounds=120),
    Setting(Coding("randk", {"unbiased": True})),
    Setting(Coding("laq", {"bits": 4})),
)

#: Three seeds.
THRICE: tuple[Setting, ...] = (
    Setting(Coding(BASELINE)),
    Setting(_stc(0.003), rounds=120),
    Setting(_stc(0.003), down=_stc(0.01), rounds=130),
)
