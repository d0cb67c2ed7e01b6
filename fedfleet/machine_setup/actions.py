"""What can be done to a machine: plain values, planned first, then shown or carried out."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fedfleet.machine_setup.layout import GROUP, venv

#: Who may read a file: all, the services, or root and systemd alone.
PUBLIC, SHARED, SECRET = 0o644, 0o640, 0o600


@dataclass(frozen=True, slots=True)
class Source:
    """Where a version comes from.

    Attributes:
        version: Which.
        wheel: Its wheel; None: pip looks for the version.
        folder: Folder of all the wheels that it needs, so that no network is used.
        sha256: The wheel's; None without one.
    """

    version: str
    wheel: Path | None = None
    folder: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class MakeGroup:
    """Create the system group whose members read the settings."""

    def __str__(self) -> str:
        """Return the action in words."""
        return f"create the system group {GROUP}"


@dataclass(frozen=True, slots=True)
class MakeVenv:
    """Install a version into a virtual environment of its own.

    Attributes:
        source: Where it comes from.
        extras: Of the distribution, sorted.
        python: The interpreter.
    """

    source: Source
    extras: tuple[str, ...]
    python: str

    def __str__(self) -> str:
        """Return the action in words."""
        extras, version = ",".join(self.extras), self.source.version
        return f"install fedfleet[{extras}] {version} into {venv(version)}"


@dataclass(frozen=True, slots=True)
class PointTo:
    """Make the link ``current`` name a version, in one step."""

    version: str

    def __str__(self) -> str:
        """Return the action in words."""
        return f"point /opt/fedfleet/current to {self.version}"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a file, in one step.

    Attributes:
        path: Where.
        text: What.
        mode: ``PUBLIC``, ``SHARED`` or ``SECRET``.
    """

    path: PurePosixPath
    text: str = field(repr=False)
    mode: int = PUBLIC

    def __str__(self) -> str:
        """Return the action in words."""
        return f"write {self.path} ({self.mode:04o})"


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file, or a folder and all that is in it."""

    path: PurePosixPath

    def __str__(self) -> str:
        """Return the action in words."""
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """Remove the system group."""

    def __str__(self) -> str:
        """Return the action in words."""
        return f"remove the system group {GROUP}"


@dataclass(frozen=True, slots=True)
class Systemctl:
    """Tell systemd something."""

    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Return the action in words."""
        return f"systemctl {' '.join(self.arguments)}"


Action = MakeGroup | MakeVenv | PointTo | WriteFile | Remove | RemoveGroup | Systemctl
