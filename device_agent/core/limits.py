"""The limits that a device keeps: the stricter ones of its owner's and its profile's."""

from typing import Literal, TypeVar

from device_agent.core.policy import LocalPolicy
from schemas.profiles import FirmwareProfile, Limits

_NumberT = TypeVar("_NumberT", int, float)

_Upper = Literal["memory_bytes", "threads", "batch_size", "model_bytes"]
_UPPER: tuple[_Upper, ...] = ("memory_bytes", "threads", "batch_size", "model_bytes")


def stricter(one: Limits, other: Limits) -> Limits:
    """Return for each limit the stricter of two; what only one of them limits is limited so.

    Of two power modes the first one's is taken: neither is stricter.
    """
    ceiling = _least(one.temperature_ceiling_celsius, other.temperature_ceiling_celsius)
    floors = [one.battery_floor_percent, other.battery_floor_percent]
    return Limits(
        **{name: _least(getattr(one, name), getattr(other, name)) for name in _UPPER},
        temperature_ceiling_celsius=ceiling,
        temperature_resume_celsius=_least(one.resume_celsius, other.resume_celsius),
        battery_floor_percent=max((one for one in floors if one is not None), default=None),
        power_mode=one.power_mode or other.power_mode,
    )


def with_profile(policy: LocalPolicy, profile: FirmwareProfile) -> LocalPolicy:
    """Return the owner's policy with the limits of the profile too."""
    limits = stricter(policy.limits, profile.limits)
    return policy.model_copy(update={"limits": limits})


def threads(asked: int | None, profile: FirmwareProfile, limits: Limits) -> int:
    """Return how many threads one training step has.

    Args:
        asked: What the settings name; None: nothing.
        profile: Whose default is taken then.
        limits: They are never exceeded.
    """
    wanted = profile.threads if asked is None else asked
    return wanted if limits.threads is None else min(wanted, limits.threads)


def _least(one: _NumberT | None, other: _NumberT | None) -> _NumberT | None:
    return min((value for value in (one, other) if value is not None), default=None)
