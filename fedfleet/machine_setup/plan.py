"""What is still to be done to a machine so that a program runs on it: a pure list of actions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from fedfleet.machine_setup import drop_ins, settings_text
from fedfleet.machine_setup.actions import (
    PUBLIC,
    SECRET,
    SHARED,
    Action,
    MakeGroup,
    MakeVenv,
    PointTo,
    Remove,
    Source,
    Systemctl,
    WriteFile,
)
from fedfleet.machine_setup.drop_ins import Limits
from fedfleet.machine_setup.layout import (
    PROGRAMS,
    Program,
    SetupError,
    venv,
)
from fedfleet.machine_setup.settings_text import Setting

_JETSON = "jetson-"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for.

    Attributes:
        program: Which.
        source: Version and where it comes from.
        python: Interpreter of the virtual environment.
        settings: Of the program, by name; no password among them.
        defaults: Settings that nobody has asked for; a file that is there may say otherwise.
        credentials: Texts of the password and certificates, by the names that programs know.
        profile: Firmware profile of a device.
        limits: What the profile grants.
        extras: Beyond the program's own.
        overwrite_settings: Whether a settings file that is there may be replaced.
    """

    program: Program
    source: Source
    python: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    defaults: Mapping[str, Setting] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    profile: str | None = None
    limits: Limits = field(default_factory=Limits)
    extras: frozenset[str] = frozenset()
    overwrite_settings: bool = False


@dataclass(frozen=True, slots=True)
class Venv:
    """What the marker of a virtual environment says.

    Attributes:
        extras: Installed ones.
        sha256: Of the wheel, if it came from one.
    """

    extras: frozenset[str]
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a machine has.

    Attributes:
        files: Texts of files, by path: of all units, drop-ins, settings and credentials.
        groups: Names of its groups.
        venvs: The whole virtual environments, by version.
        current: The version that the link names.
        enabled: Units that start at boot.
        active: Units that run or are about to.
        states: Programs that have a state directory.
        systemd_version: As ``systemctl --version`` says.
        has_systemd: False below another root: nothing is started there.
    """

    files: Mapping[PurePosixPath, str] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    venvs: Mapping[str, Venv] = field(default_factory=dict)
    current: str | None = None
    enabled: frozenset[str] = frozenset()
    active: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    systemd_version: int = drop_ins.FIRST_WITH_CREDENTIALS
    has_systemd: bool = True

    def installed(self) -> tuple[Program, ...]:
        """Return the programs whose unit is there."""
        return tuple(p for p in PROGRAMS.values() if p.unit_path in self.files)


def plan_install(wanted: Wanted, seen: Seen) -> list[Action]:
    """Return what is missing, in the order in which it must be done; empty when nothing is.

    Raises:
        SetupError: What is there contradicts what is asked.
    """
    program, version = wanted.program, wanted.source.version
    if seen.current not in (None, version):
        message = (
            f"version {seen.current} is installed here; "
            f"fedfleet upgrade {program.name} brings {version}, with a way back"
        )
        raise SetupError(message)
    actions: list[Action] = [] if "fedfleet" in seen.groups else [MakeGroup()]
    actions += _venv_actions(wanted, seen)
    if seen.current != version:
        actions.append(PointTo(version))
    files = [*_unit_files(wanted, seen), *_settings_files(wanted, seen)]
    changed = [file for file in files if seen.files.get(file.path) != file.text]
    actions += changed
    stale = _stale_drop_ins(wanted, seen, {file.path for file in files})
    actions += [Remove(path) for path in stale]
    if not seen.has_systemd:
        return actions
    if any(file.path.is_relative_to(program.unit_path.parent) for file in changed) or stale:
        actions.append(Systemctl(("daemon-reload",)))
    if program.unit not in seen.enabled:
        actions.append(Systemctl(("enable", program.unit)))
    if program.unit in seen.active and actions:
        actions.append(Systemctl(("stop", program.unit)))
    if program.unit not in seen.active or actions:
        actions.append(Systemctl(("start", "--no-block", program.unit)))
    return actions


def _venv_actions(wanted: Wanted, seen: Seen) -> list[Action]:
    source = wanted.source
    present = seen.venvs.get(source.version)
    extras = wanted.extras | {wanted.program.name}
    if present is not None:
        if source.sha256 is not None and present.sha256 not in (None, source.sha256):
            message = (
                f"wheel: {venv(source.version)} was made from another wheel of the same version; "
                "give the new one a version of its own"
            )
            raise SetupError(message)
        if extras <= present.extras:
            return []
        extras |= present.extras
    return [MakeVenv(source, tuple(sorted(extras)), wanted.python)]


def _unit_files(wanted: Wanted, seen: Seen) -> list[WriteFile]:
    program, folder = wanted.program, wanted.program.drop_ins
    files = [WriteFile(program.unit_path, drop_ins.unit(program), PUBLIC)]
    if wanted.profile is not None:
        text = drop_ins.limits_text(wanted.profile, wanted.limits)
        files += [WriteFile(folder / "20-profile.conf", text)] if text else []
        if wanted.profile.startswith(_JETSON):
            files.append(WriteFile(folder / "jetson.conf", drop_ins.jetson(seen.groups)))
    if names := _credential_names(wanted, seen):
        text = drop_ins.credentials(program, names, seen.systemd_version)
        files.append(WriteFile(folder / "10-credentials.conf", text))
    if "torch" in wanted.extras and program.name == "device":
        files.append(WriteFile(folder / "30-torch.conf", drop_ins.torch()))
    return files


def _credential_names(wanted: Wanted, seen: Seen) -> set[str]:
    folder = wanted.program.credentials
    kept = {path.name for path in seen.files if path.parent == folder}
    return kept | set(wanted.credentials)


def _settings_files(wanted: Wanted, seen: Seen) -> list[WriteFile]:
    program = wanted.program
    present = seen.files.get(program.settings)
    if present is not None and not wanted.overwrite_settings:
        settings_text.check_kept(program, present, wanted.settings)
        text = present
    else:
        defaults = settings_text.kept(present or "", wanted.defaults)
        text = settings_text.render(program, {**defaults, **wanted.settings})
    files = [WriteFile(program.settings, text, SHARED)]
    has_credentials = seen.systemd_version >= drop_ins.FIRST_WITH_CREDENTIALS
    mode = SECRET if has_credentials else SHARED
    files += [
        WriteFile(program.credentials / name, content, mode)
        for name, content in sorted(wanted.credentials.items())
    ]
    return files


def _stale_drop_ins(
    wanted: Wanted, seen: Seen, written: set[PurePosixPath]
) -> list[PurePosixPath]:
    """Return what another profile has left; a person's own drop-ins stay."""
    if wanted.profile is None:
        return []
    folder = wanted.program.drop_ins
    paths = (folder / "20-profile.conf", folder / "jetson.conf")
    return [path for path in paths if path in seen.files and path not in written]
