"""Codec ``auto``: which codec one device takes for one update, within its task's accuracy.

Each accuracy has its candidates, the most faithful first, with fixed settings; central takes an
update in any of them. A device takes the first one whose upload would last no longer than half of
its training, and at least two seconds: a round then waits for training, not for the link. Where no
candidate is so quick it takes the smallest. What its owner forbids to send is left out before.

Where a candidate needs error feedback, all of its accuracy's go with it, since what one codec left
out is sent by whichever comes next.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from schemas.messages import Memory
from schemas.tasks import Parameter
from updates.codecs.registry import create
from updates.errors import CodecParameterError
from updates.feedback import memory_of

AUTO = "auto"
Accuracy: TypeAlias = Literal["exact", "high", "balanced", "small"]
DEFAULT_ACCURACY: Accuracy = "balanced"
#: What an upload may take, as a share of the training and at least.
UPLOAD_SHARE = 0.5
MIN_UPLOAD_S = 2.0
#: Of a link that was not measured yet: a slow one, so that the first update is not a large one.
ASSUMED_BYTES_S = 32_000.0
_BITS_A_BYTE = 8
_KILO = 1000.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One codec with its settings.

    Attributes:
        codec_id: Id of the codec.
        bits: What it takes for a value of an update, on average.
        params: Its settings.
        fixed_bytes: What it takes beside the values.
    """

    codec_id: str
    bits: float
    params: Mapping[str, Parameter] = field(default_factory=dict)
    fixed_bytes: int = 64

    def expected_bytes(self, values: int) -> int:
        """Return about how long an update of so many values is."""
        return self.fixed_bytes + math.ceil(self.bits * values / _BITS_A_BYTE)

    @property
    def label(self) -> str:
        """The codec and its settings for people: ``ecsq bits=0.1``."""
        return label(self.codec_id, self.params)


CANDIDATES: Mapping[Accuracy, tuple[Candidate, ...]] = {
    "exact": (Candidate("raw-f32", 32), Candidate("fp16", 16)),
    "high": (Candidate("fp16", 16), Candidate("int8", 8.1)),
    "balanced": (
        Candidate("symmetric", 8, {"bits": 8, "stochastic": False}),
        Candidate("ecsq", 2, {"bits": 2.0}, fixed_bytes=200),
        Candidate("ecsq", 1, {"bits": 1.0}, fixed_bytes=200),
    ),
    "small": (
        Candidate("ecsq", 0.5, {"bits": 0.5}, fixed_bytes=200),
        Candidate("ecsq", 0.1, {"bits": 0.1}, fixed_bytes=200),
        Candidate("stc", 0.043, {"fraction": 0.004}),
    ),
}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a device knows when an update is to be encoded.

    Attributes:
        values: Length of the update.
        train_s: How long its training took.
        rate_bytes_s: What its link carried at least, of late; None: not measured.
        max_bytes: The longest update that its owner allows; None: any.
        assumed_bytes_s: What its link carries as long as it was not measured.
    """

    values: int
    train_s: float
    rate_bytes_s: float | None = None
    max_bytes: int | None = None
    assumed_bytes_s: float = ASSUMED_BYTES_S


@dataclass(frozen=True, slots=True)
class Choice:
    """What was picked.

    Attributes:
        candidate: The codec with its settings.
        reason: Why, in one sentence.
    """

    candidate: Candidate
    reason: str


def accuracy_of(params: Mapping[str, object]) -> Accuracy:
    """Return the accuracy that the settings of codec ``auto`` ask for.

    Raises:
        CodecParameterError: There is another setting, or no such accuracy.
    """
    for name in params:
        if name != "accuracy":
            raise CodecParameterError(name, params[name], "not known, auto takes accuracy")
    asked = params.get("accuracy", DEFAULT_ACCURACY)
    for accuracy in get_args(Accuracy):
        if asked == accuracy:
            return accuracy  # type: ignore[no-any-return]
    allowed = ", ".join(get_args(Accuracy))
    raise CodecParameterError(field="accuracy", value=asked, limit=f"must be one of {allowed}")


def task_memory(
    codec_id: str,
    params: Mapping[str, object],
    error_feedback: bool | None,  # noqa: FBT001 - a task's field
) -> Memory:
    """Return what the devices of a task keep from round to round, of ``auto`` or of any codec.

    Raises:
        CodecParameterError: There is no such codec or setting, or it forbids error feedback.
    """
    if codec_id != AUTO:
        return memory_of(create(codec_id, params), error_feedback)
    codecs = [create(one.codec_id, one.params) for one in CANDIDATES[accuracy_of(params)]]
    if error_feedback is None:
        error_feedback = any(codec.feedback == "required" for codec in codecs)
    kinds = {memory_of(codec, error_feedback) for codec in codecs}
    return "feedback" if "feedback" in kinds else "none"


def is_candidate(accuracy: Accuracy, codec_id: str, params: Mapping[str, object]) -> bool:
    """Tell whether an update may be encoded so in a task of this accuracy.

    Types count: to Python 0 is False and 8.0 is 8, to a codec they are not.
    """
    return any(
        one.codec_id == codec_id and _typed(one.params) == _typed(params)
        for one in CANDIDATES[accuracy]
    )


def choose(accuracy: Accuracy, seen: Circumstances) -> Choice:
    """Return the codec for one update, and why.

    Raises:
        CodecParameterError: Its owner allows none of the candidates.
    """
    limit = math.inf if seen.max_bytes is None else seen.max_bytes
    allowed = [one for one in CANDIDATES[accuracy] if one.expected_bytes(seen.values) <= limit]
    if not allowed:
        smallest = CANDIDATES[accuracy][-1].expected_bytes(seen.values)
        text = f"of {seen.values} values takes about {smallest} bytes, the owner allows {limit}"
        raise CodecParameterError(field="accuracy", value=accuracy, limit=text)
    budget_s = max(MIN_UPLOAD_S, UPLOAD_SHARE * seen.train_s)
    quick = [one for one in allowed if _upload_s(one, seen) <= budget_s]
    picked = quick[0] if quick else allowed[-1]
    return Choice(picked, _reason(picked, accuracy, seen, budget_s))


def label(codec_id: str, params: Mapping[str, object]) -> str:
    """Return a codec with its settings for people: ``ecsq bits=0.1``."""
    return " ".join((codec_id, *(f"{name}={value}" for name, value in params.items())))


def _typed(params: Mapping[str, object]) -> dict[str, tuple[type, object]]:
    return {name: (type(value), value) for name, value in params.items()}


def _rate(seen: Circumstances) -> float:
    return seen.assumed_bytes_s if seen.rate_bytes_s is None else seen.rate_bytes_s


def _upload_s(one: Candidate, seen: Circumstances) -> float:
    return one.expected_bytes(seen.values) / _rate(seen)


def _reason(picked: Candidate, accuracy: Accuracy, seen: Circumstances, budget_s: float) -> str:
    how = "assumed" if seen.rate_bytes_s is None else "measured"
    text = (
        f"{picked.label}: {picked.expected_bytes(seen.values) / _KILO:.1f} kB in "
        f"{_upload_s(picked, seen):.1f} s at {_rate(seen) / _KILO:.1f} kB/s ({how})"
    )
    better = CANDIDATES[accuracy][: CANDIDATES[accuracy].index(picked)]
    if not better:
        return text
    other = better[-1]
    if seen.max_bytes is not None and other.expected_bytes(seen.values) > seen.max_bytes:
        return f"{text}; the owner allows {seen.max_bytes} bytes, too few for {other.label}"
    return f"{text}; {other.label} takes {_upload_s(other, seen):.1f} s, above {budget_s:.1f} s"
