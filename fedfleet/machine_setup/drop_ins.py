"""What changes a unit on one machine: limits of its profile, credentials, a GPU, torch."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from fedfleet.machine_setup.layout import Program, SetupError

#: The first systemd with LoadCredential= (systemd 247, NEWS).
FIRST_WITH_CREDENTIALS = 247
#: Of the setting ``profile``: the device looks at its machine; nothing is known here before.
_AUTO = "auto"
_UNITS = files("fedfleet.machine_setup") / "units"
_SPARE_TASKS = 64
_TASKS_PER_THREAD = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a profile grants; None: nothing is said.

    Attributes:
        memory_bytes: Most memory of the whole service.
        threads: CPUs that it may use up.
    """

    memory_bytes: int | None = None
    threads: int | None = None


def limits_of(profile: str | None) -> Limits:
    """Return the limits of a firmware profile, a name or FILE.yaml; none where none is named.

    Raises:
        SetupError: There is no such profile, or its file does not fit.
    """
    if profile is None or profile == _AUTO:
        return Limits()
    profiles = import_module("firmware_profiles")
    is_file = profile.endswith((".yaml", ".yml"))
    try:
        limits = (profiles.read(Path(profile)) if is_file else profiles.load(profile)).limits
    except profiles.ProfileError as error:
        raise SetupError(str(error)) from error
    return Limits(limits.memory_bytes, limits.threads)


def unit(program: Program) -> str:
    """Return the text of a program's unit."""
    return (_UNITS / program.unit).read_text(encoding="utf-8")


def jetson(groups: Collection[str]) -> str:
    """Return the drop-in that opens a Jetson's GPU; ``render`` is a group of newer releases."""
    text = (_UNITS / "fedfleet-device.service.d" / "jetson.conf").read_text(encoding="utf-8")
    return text + ("SupplementaryGroups=render\n" if "render" in groups else "")


def limits_text(profile: str, limits: Limits) -> str | None:
    """Return the drop-in with a profile's limits, or None when it has none."""
    lines = []
    if limits.memory_bytes is not None:
        lines.append(f"MemoryMax={limits.memory_bytes}")
    if limits.threads is not None:
        lines.append(f"CPUQuota={100 * limits.threads}%")
        lines.append(f"TasksMax={_SPARE_TASKS + _TASKS_PER_THREAD * limits.threads}")
    if not lines:
        return None
    return "\n".join([f"# Limits of the profile {profile}", "[Service]", *lines, ""])


def credentials(program: Program, names: Collection[str], systemd_version: int) -> str:
    """Return the drop-in that hands a program its password and certificates.

    A systemd that is too old for credentials leaves the files where they are; the program then
    finds them by the same variable, and its group may read them.
    """
    folder = program.credentials
    if systemd_version >= FIRST_WITH_CREDENTIALS:
        lines = [f"LoadCredential={name}:{folder / name}" for name in sorted(names)]
    else:
        lines = [f"Environment=CREDENTIALS_DIRECTORY={folder}"]
    return "\n".join(["[Service]", *lines, ""])


def torch() -> str:
    """Return the drop-in that lets torch compile its kernels."""
    return "# torch compiles kernels as it runs.\n[Service]\nMemoryDenyWriteExecute=no\n"
