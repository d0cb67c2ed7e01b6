"""The machine that is set up: what it has, and how each action is carried out on it."""

import contextlib
import grp
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fedfleet.machine_setup import venvs
from fedfleet.machine_setup.actions import (
    Action,
    MakeGroup,
    MakeVenv,
    PointTo,
    Remove,
    RemoveGroup,
    Systemctl,
    WriteFile,
)
from fedfleet.machine_setup.layout import CONFIG, CURRENT, GROUP, PROGRAMS, VENVS, SetupError, venv
from fedfleet.machine_setup.plan import Seen, Venv
from fedfleet.machine_setup.venvs import UMASK

_LIVE = frozenset({"active", "activating", "reloading", "deactivating"})


class Machine:
    """A machine, or a tree of files that will become one.

    Attributes:
        root: ``/``, or where the tree lies; below any other root nothing is started, no group
            is made and every file belongs to whoever runs this.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.is_live = root == Path("/")

    def real(self, path: PurePosixPath) -> Path:
        """Return a path of the machine below its root."""
        return self.root / path.relative_to("/")

    def check_rights(self) -> None:
        """Check that it may be changed.

        Raises:
            SetupError: This is not root, or systemd does not run here.
        """
        if not self.is_live:
            return
        if os.geteuid() != 0:
            message = "setting a machine up needs root: run it with sudo"
            raise SetupError(message)
        if not Path("/run/systemd/system").is_dir():
            message = "systemd does not run here, and nothing else starts programs at boot for us"
            raise SetupError(message)

    def look(self) -> Seen:
        """Return what it has."""
        units = [program.unit for program in PROGRAMS.values()]
        return Seen(
            files=self._files(),
            groups=self._groups(),
            venvs=self._venvs(),
            current=self._current(),
            enabled=frozenset(u for u in units if self._asks("is-enabled", u) == "enabled"),
            active=frozenset(u for u in units if self._asks("is-active", u) in _LIVE),
            states=frozenset(
                p.name for p in PROGRAMS.values() if os.path.lexists(self.real(p.state))
            ),
            systemd_version=self._systemd_version(),
            has_systemd=self.is_live,
        )

    def perform(self, action: Action) -> None:
        """Carry one action out.

        Raises:
            SetupError: It cannot be done; the text says why.
        """
        before = os.umask(UMASK)
        try:
            self._perform(action)
        except OSError as error:
            message = f"cannot {action}: {error}"
            raise SetupError(message) from error
        finally:
            os.umask(before)

    def _perform(self, action: Action) -> None:  # noqa: C901 - one line a kind
        match action:
            case MakeGroup():
                self._run_live(["groupadd", "--system", "--force", GROUP])
            case RemoveGroup():
                self._run_live(["groupdel", GROUP])
            case MakeVenv():
                venvs.make(action, self.real(venv(action.source.version)))
            case PointTo():
                self._point_to(action.version)
            case WriteFile():
                self._write(action)
            case Remove():
                self._remove(self.real(action.path))
            case Systemctl(("reset-failed", *_)):
                self._ask(["systemctl", *action.arguments])
            case Systemctl():
                self._run_live(["systemctl", *action.arguments])

    def _write(self, action: WriteFile) -> None:
        path = self.real(action.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if action.path.is_relative_to(CONFIG / "credentials"):
            self._close(path.parent, action.mode | 0o100 | (action.mode & 0o040) >> 3)
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(action.text)
            file.flush()
            os.fsync(file.fileno())
        self._close(fresh, action.mode)
        fresh.replace(path)

    def _close(self, path: Path, mode: int) -> None:
        """Give a file or a folder the mode, and the services' group what the mode says."""
        if mode & 0o070 and not mode & 0o007 and self.is_live:
            os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
        path.chmod(mode)

    def _point_to(self, version: str) -> None:
        link = self.real(CURRENT)
        fresh = link.with_name(".current.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(version)
        fresh.replace(link)

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)

    def _run_live(self, command: Sequence[str]) -> None:
        if self.is_live:
            venvs.run_loudly(command)

    def _asks(self, verb: str, unit: str) -> str:
        return self._ask(["systemctl", verb, unit]) if self.is_live else ""

    @staticmethod
    def _ask(command: Sequence[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError:
            return ""
        return done.stdout.strip()

    def _systemd_version(self) -> int:
        match = re.match(r"systemd (\d+)", self._ask(["systemctl", "--version"]))
        return int(match[1]) if match else Seen().systemd_version

    def _files(self) -> dict[PurePosixPath, str]:
        paths = []
        for program in PROGRAMS.values():
            paths += [program.unit_path, program.settings]
            for folder in (program.drop_ins, program.credentials):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    paths += [folder / path.name for path in self.real(folder).iterdir()]
        texts = {path: self._text(path) for path in paths}
        return {path: text for path, text in texts.items() if text is not None}

    def _text(self, path: PurePosixPath) -> str | None:
        try:
            return self.real(path).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"cannot read {path}: {error.strerror}; run it with sudo"
            raise SetupError(message) from error

    def _groups(self) -> frozenset[str]:
        text = self._text(PurePosixPath("/etc/group")) or ""
        found = {line.partition(":")[0] for line in text.splitlines()}
        return frozenset(found if self.is_live else found | {GROUP})

    def _venvs(self) -> dict[str, Venv]:
        folder = self.real(VENVS)
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        found = {path.name: venvs.read(path) for path in paths if not path.is_symlink()}
        return {name: kept for name, kept in found.items() if kept is not None}

    def _current(self) -> str | None:
        try:
            return self.real(CURRENT).readlink().name
        except OSError:
            return None
