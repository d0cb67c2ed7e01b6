"""Names for a codec with its settings and its memory: what papers call by one name.

The modes of "FLQ" (``flq_fed_v3.py`` of https://github.com/JasonNing96/kew_federated_learning) in
the form that is sound; what was changed, and why, is in docs/adr/0025. A task may name one as its
codec.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.tasks import TaskSubmission
from updates.errors import CodecParameterError


@dataclass(frozen=True, slots=True)
class Preset:
    """One name.

    Attributes:
        codec: Id of the codec.
        fixed: Settings that make it what it is.
        defaults: Settings that a task may give instead.
        error_feedback: Whether it is on; None: as the codec requires, or as the task asks.
    """

    codec: str
    fixed: Mapping[str, bool | int | str] = field(default_factory=dict)
    defaults: Mapping[str, bool | int | str] = field(default_factory=dict)
    error_feedback: bool | None = None


PRESETS: Mapping[str, Preset] = {
    "laq8": Preset("symmetric", {"bits": 8, "stochastic": True, "scope": "vector"}),
    "bbit": Preset("laq", {"stochastic": True, "skips": False}, {"bits": 8}),
    "bin": Preset("bin", error_feedback=True),
}


def resolve(submission: TaskSubmission) -> TaskSubmission:
    """Return a task with its codec's own name and settings in the place of a preset's.

    Raises:
        CodecParameterError: The task gives a setting that the preset fixes, to another value.
    """
    preset = PRESETS.get(submission.codec)
    if preset is None:
        return submission
    given = submission.codec_params
    for name, value in preset.fixed.items():
        if name in given and given[name] != value:
            limit = f"preset {submission.codec} has {value!r}; use codec {preset.codec} itself"
            raise CodecParameterError(field=name, value=given[name], limit=limit)
    asked = submission.error_feedback
    changes = {
        "codec": preset.codec,
        "codec_params": {**preset.defaults, **given, **preset.fixed},
        "error_feedback": preset.error_feedback if asked is None else asked,
    }
    return submission.model_copy(update=changes)
