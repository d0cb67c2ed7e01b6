"""Whether the firmware profile that the device was given is that of this machine."""

from dataclasses import dataclass
from importlib import import_module

from device_agent.settings import DeviceSettings
from fedfleet.doctor.finding import Finding, failed, ok, warning
from transport.settings import ConnectionSettings

_CHECK = "profile"
#: What fits every machine, and the wish to have it detected.
_GENERIC, _AUTO = "generic", "auto"


@dataclass(frozen=True, slots=True)
class Recognized:
    """What this machine is taken for.

    Attributes:
        name: A profile.
        is_certain: Whether it is one for this very board.
        reason: Why it is this one.
    """

    name: str
    is_certain: bool
    reason: str


def examine_profile(settings: ConnectionSettings) -> list[Finding]:
    """Compare the profile of the settings with the one that this machine is recognized as."""
    if not isinstance(settings, DeviceSettings):
        return []
    try:
        recognized = _recognize(settings.profile)
    except (ImportError, AttributeError) as error:
        advice = "this fedfleet carries no firmware profiles; nothing need be done"
        return [warning(_CHECK, f"not available: {error}", advice)]
    except (OSError, ValueError) as error:
        advice = "fedfleet profiles list names those that there are"
        return [failed(_CHECK, str(error), advice)]
    return [judge_profile(settings.profile, recognized)]


def judge_profile(chosen: str, recognized: Recognized) -> Finding:
    """Tell whether the chosen profile is the machine's own."""
    name = recognized.name
    if chosen in {name, _AUTO}:
        return ok(_CHECK, f"{name}: {recognized.reason}")
    if not recognized.is_certain:
        return ok(_CHECK, f"{chosen}, as chosen; {recognized.reason}")
    seen = f"{chosen} was chosen, and this machine is a {name}: {recognized.reason}"
    if chosen == _GENERIC:
        return warning(_CHECK, seen, f'profile = "{name}" gives it that family\'s limits')
    return warning(_CHECK, seen, f'set profile = "{name}" or "auto", unless you know better')


def _recognize(chosen: str) -> Recognized:
    """Look at the machine.

    Raises:
        ImportError: There are no profiles.
        ValueError: The chosen one is not known or does not fit.
    """
    profiles = import_module("firmware_profiles")
    choice = import_module("device_agent.adapters.profile_choice")
    machine = import_module("device_agent.adapters.machine_files")
    detection = import_module("device_agent.core.detection")
    choice.choose_profile(chosen)
    found = detection.detect(machine.read_machine(), profiles.load_all())
    return Recognized(str(found.name), bool(found.is_certain), str(found.reason))
