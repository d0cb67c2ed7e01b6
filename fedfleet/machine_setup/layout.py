"""Where an installed program keeps what: one table for install, upgrade, uninstall and tests.

Paths are those of the running machine; ``fedfleet.machine_setup.machine`` puts a root before them.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from fedfleet.errors import FleetError

#: Its members read the settings; the services, which run as users made up on the spot, are in it.
GROUP = "fedfleet"
VENVS = PurePosixPath("/opt/fedfleet")
CURRENT = VENVS / "current"
CONFIG = PurePosixPath("/etc/fedfleet")
UNITS = PurePosixPath("/etc/systemd/system")
#: Written last into a virtual environment; without it, the environment is not whole.
MARKER = "fedfleet-install.json"


class SetupError(FleetError):
    """A machine was not set up, or not as asked; the text says what is wrong and what helps."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program as systemd runs it.

    Attributes:
        name: ``device``, ``gateway`` or ``central``; also the name of its extra.
    """

    name: str

    @property
    def unit(self) -> str:
        """Name of its unit."""
        return f"fedfleet-{self.name}.service"

    @property
    def unit_path(self) -> PurePosixPath:
        """File of its unit."""
        return UNITS / self.unit

    @property
    def drop_ins(self) -> PurePosixPath:
        """Folder of what changes its unit on this machine."""
        return UNITS / f"{self.unit}.d"

    @property
    def settings(self) -> PurePosixPath:
        """File of its settings."""
        return CONFIG / f"{self.name}.toml"

    @property
    def credentials(self) -> PurePosixPath:
        """Folder of its password and certificates, which only root may read."""
        return CONFIG / "credentials" / self.name

    @property
    def state(self) -> PurePosixPath:
        """Its state directory."""
        return PurePosixPath("/var/lib") / f"fedfleet-{self.name}"

    @property
    def private_state(self) -> PurePosixPath:
        """Where systemd really keeps the state of a dynamic user."""
        return PurePosixPath("/var/lib/private") / f"fedfleet-{self.name}"


PROGRAMS = {name: Program(name) for name in ("device", "gateway", "central")}


def venv(version: str) -> PurePosixPath:
    """Return the folder of one version."""
    return VENVS / version
