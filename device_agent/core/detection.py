"""Which firmware profile a machine has, by what its files tell of it.

1. A profile for particular boards fits when the device tree names one of them and everything else
   that it asks for holds. Of several the one of the highest priority is taken.
2. Two of the same priority are ambiguous: neither is taken.
3. Then the profile of the machine's architecture, else ``generic``; the reason says which profile
   was near, and what kept it away.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from schemas.profiles import Detection, FirmwareProfile, numbers

_FALLBACK = "generic"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a machine.

    Attributes:
        architecture: As ``uname -m`` says.
        memory_bytes: All of its memory; None: not known.
        model: Its board, as the device tree names it.
        compatible: What its device tree says that it is compatible with.
        l4t: Its release of Jetson Linux, as ``36.4.3``.
        cores: How many processors it has; 0: not known.
    """

    architecture: str
    memory_bytes: int | None = None
    model: str | None = None
    compatible: tuple[str, ...] = ()
    l4t: str | None = None
    cores: int = 0

    def describe(self) -> str:
        """Return the machine in a few words."""
        parts = [self.model or "no device tree", self.architecture]
        if self.l4t is not None:
            parts.append(f"L4T {self.l4t}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Detected:
    """What was found.

    Attributes:
        name: The profile's family.
        reason: Why it is this one, for a person.
        is_certain: Whether a profile for this very board was found.
        near: Families that name the board too and were not taken.
    """

    name: str
    reason: str
    is_certain: bool
    near: tuple[str, ...] = ()


def detect(seen: Seen, profiles: Iterable[FirmwareProfile]) -> Detected:
    """Return the profile of a machine, and why; the same for the same machine and profiles.

    Args:
        seen: The machine.
        profiles: Those to choose from.
    """
    ordered = sorted(profiles, key=lambda one: (-one.detection.priority, one.family))
    named = [one for one in ordered if one.detection.is_specific and _names(seen, one.detection)]
    fitting = [one for one in named if not _misfit(seen, one.detection)]
    if not fitting:
        return _by_architecture(seen, ordered, named)
    best = fitting[0]
    equal = [one for one in fitting if one.detection.priority == best.detection.priority]
    if len(equal) > 1:
        return _by_architecture(seen, ordered, equal)
    near = tuple(one.family for one in named if one is not best)
    return Detected(best.family, _why(seen, best.detection), is_certain=True, near=near)


def _by_architecture(
    seen: Seen, ordered: Iterable[FirmwareProfile], near: list[FirmwareProfile]
) -> Detected:
    general = (
        one.family
        for one in ordered
        if not one.detection.is_specific and not _misfit(seen, one.detection)
    )
    name = next(general, _FALLBACK)
    reason = f"{_why_not(seen, near)}: what is known of {seen.architecture} in general"
    return Detected(name, reason, is_certain=False, near=tuple(one.family for one in near))


def _why_not(seen: Seen, near: list[FirmwareProfile]) -> str:
    misfits = [f"not {one.family}: {_misfit(seen, one.detection)}" for one in near]
    if not near:
        return f"no profile is for this board ({seen.describe()})"
    if all(_misfit(seen, one.detection) is None for one in near):
        families = " and ".join(one.family for one in near)
        return f"ambiguous, {families} fit alike ({seen.describe()})"
    return "; ".join(misfits)


def _why(seen: Seen, asked: Detection) -> str:
    known = _compatible(seen, asked)
    board = f"model {seen.model!r}" if seen.model else "no model"
    text = f"{board}, compatible {known!r}" if known else board
    return f"{text}, L4T {seen.l4t}" if seen.l4t and asked.l4t_min else text


def _names(seen: Seen, asked: Detection) -> bool:
    """Tell whether the device tree names one of a profile's boards."""
    model = seen.model or ""
    is_model = any(fnmatchcase(model, pattern) for pattern in asked.models)
    return is_model or _compatible(seen, asked) is not None


def _compatible(seen: Seen, asked: Detection) -> str | None:
    return next((entry for entry in seen.compatible if entry in asked.compatible), None)


def _misfit(seen: Seen, asked: Detection) -> str | None:
    """Return what else of a profile does not hold, or None."""
    if asked.architectures and seen.architecture not in asked.architectures:
        return f"architecture {seen.architecture}, it is for {', '.join(asked.architectures)}"
    return _l4t_misfit(seen.l4t, asked) or _memory_misfit(seen.memory_bytes, asked)


def _l4t_misfit(l4t: str | None, asked: Detection) -> str | None:
    if asked.l4t_min is None and asked.l4t_max is None:
        return None
    span = f"it is for {asked.l4t_min or 'any'} to {asked.l4t_max or 'any'}"
    if l4t is None:
        return f"no L4T release was found, {span}"
    found = numbers(l4t)
    is_old = asked.l4t_min is not None and found < numbers(asked.l4t_min)
    # 32.7 takes in 32.7.6, so no more numbers are compared than are given.
    newest = numbers(asked.l4t_max) if asked.l4t_max is not None else found
    is_new = found[: len(newest)] > newest
    return f"L4T {l4t}, {span}" if is_old or is_new else None


def _memory_misfit(memory_bytes: int | None, asked: Detection) -> str | None:
    least, most = asked.memory_min_bytes, asked.memory_max_bytes
    if memory_bytes is None:
        return None
    if least is not None and memory_bytes < least:
        return f"memory_min_bytes: {least}, here {memory_bytes}"
    if most is not None and memory_bytes > most:
        return f"memory_max_bytes: {most}, here {memory_bytes}"
    return None
