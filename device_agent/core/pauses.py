"""When training waits between two steps: the device is too hot, or its battery too low.

Each cause ends a little later than it begins (hysteresis), so that a device at its limit rests
for a while instead of stopping and going on at every step.
"""

from dataclasses import dataclass

from schemas.profiles import Limits

#: A battery that was too low must have so much more before training goes on.
BATTERY_HYSTERESIS_PERCENT = 5

_HOT, _LOW = "hot", "low"


@dataclass(frozen=True, slots=True)
class Condition:
    """The device as its sensors tell it.

    Attributes:
        temperature_celsius: Of its processor; None: not known, and then never too hot.
        battery_percent: How full its battery is; None: it has none.
        is_plugged: Whether that is being charged.
    """

    temperature_celsius: float | None = None
    battery_percent: int | None = None
    is_plugged: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Training waits.

    Attributes:
        causes: What holds it up.
        reason: The same for a person, with the numbers.
    """

    causes: frozenset[str]
    reason: str


def is_limited(limits: Limits) -> bool:
    """Tell whether anything may ever hold training up, so that sensors must be read."""
    return (
        limits.temperature_ceiling_celsius is not None or limits.battery_floor_percent is not None
    )


def look(limits: Limits, now: Condition, before: Pause | None) -> Pause | None:
    """Return the pause that is due now, or None: training goes on.

    Args:
        limits: The device's.
        now: What its sensors tell.
        before: The pause that it is in, if any.
    """
    causes = frozenset() if before is None else before.causes
    found = {
        _HOT: _too_hot(limits, now.temperature_celsius, is_held=_HOT in causes),
        _LOW: _too_low(limits, now, is_held=_LOW in causes),
    }
    reasons = {cause: reason for cause, reason in found.items() if reason is not None}
    if not reasons:
        return None
    return Pause(frozenset(reasons), f"paused: {'; '.join(reasons.values())}")


def _too_hot(limits: Limits, celsius: float | None, *, is_held: bool) -> str | None:
    ceiling, resume = limits.temperature_ceiling_celsius, limits.resume_celsius
    if celsius is None or ceiling is None or resume is None:
        return None
    if celsius < ceiling and not (is_held and celsius > resume):
        return None
    return f"{celsius:g} degrees Celsius, the ceiling is {ceiling:g}, it goes on at {resume:g}"


def _too_low(limits: Limits, now: Condition, *, is_held: bool) -> str | None:
    floor, percent = limits.battery_floor_percent, now.battery_percent
    if floor is None or percent is None or now.is_plugged:
        return None
    goal = min(100, floor + BATTERY_HYSTERESIS_PERCENT)
    if percent >= (goal if is_held else floor):
        return None
    return f"battery at {percent} %, the floor is {floor}, it goes on at {goal} or when charged"
