"""Whether the firmware profile that the device was given is that of this machine."""

from importlib import import_module

from device_agent.settings import DeviceSettings
from fedfleet.doctor.finding import Finding, failed, ok, warning
from transport.settings import ConnectionSettings

_CHECK = "profile"
#: What fits every machine.
GENERIC = "generic"


def examine_profile(settings: ConnectionSettings) -> list[Finding]:
    """Compare the profile of the settings with the one that this machine is recognized as."""
    if not isinstance(settings, DeviceSettings):
        return []
    try:
        profiles = import_module("firmware_profiles")
        detect = import_module("firmware_profiles.detection").detect
        if settings.profile != GENERIC:
            profiles.load(settings.profile)
        detected = detect()
    except (ImportError, AttributeError) as error:
        advice = "this fedfleet carries no firmware profiles; nothing need be done"
        return [warning(_CHECK, f"not available: {error}", advice)]
    except (OSError, ValueError, LookupError) as error:
        return [failed(_CHECK, str(error), "fedfleet profiles list names those that there are")]
    return [judge_profile(settings.profile, getattr(detected, "name", detected))]


def judge_profile(chosen: str, detected: str | None) -> Finding:
    """Tell whether the chosen profile is the machine's own."""
    if detected is None or chosen == detected:
        known = "" if detected else "; this machine is none of the known families"
        return ok(_CHECK, f"{chosen}{known}")
    if chosen == GENERIC:
        advice = f"--profile {detected} gives the device that family's limits"
        return warning(_CHECK, f"{chosen}, and this machine is recognized as {detected}", advice)
    seen = f"{chosen} was chosen, and this machine is recognized as {detected}"
    return warning(_CHECK, seen, f"set profile = {detected!r}, unless you know better")
