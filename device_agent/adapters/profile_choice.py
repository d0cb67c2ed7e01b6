"""Which firmware profile this device has: the one that its owner names, or what is detected."""

from dataclasses import dataclass
from pathlib import Path

import firmware_profiles
from device_agent.adapters.machine_files import read_machine
from device_agent.core.detection import detect
from schemas.profiles import FirmwareProfile

#: Of the setting ``profile``: look at the machine.
AUTO = "auto"
_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class ProfileChoice:
    """One profile, and why it is this one."""

    profile: FirmwareProfile
    reason: str


def choose_profile(asked: str, root: Path = _ROOT) -> ProfileChoice:
    """Return the profile to run with.

    Args:
        asked: A name, the path of a YAML file, or ``auto``.
        root: Where the machine's files are.

    Raises:
        firmware_profiles.ProfileError: There is none of that name, or the file does not fit.
    """
    if asked == AUTO:
        found = detect(read_machine(root), firmware_profiles.load_all())
        return ProfileChoice(firmware_profiles.load(found.name), f"detected: {found.reason}")
    if asked.endswith((".yaml", ".yml")):
        return ProfileChoice(firmware_profiles.read(Path(asked)), f"named: {asked}")
    return ProfileChoice(firmware_profiles.load(asked), "named in the settings")
