"""A program's database as it was before an upgrade, and how it is put back.

A newer version brings the database up to date at its first start, and the version before then
refuses it. So the file is copied while the program is stopped, into a folder beside the state
directory that only root can write to: what runs as the program's user can neither change the
copy nor lead root astray by a link.
"""

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fedfleet.machine_setup.layout import Program, SetupError
from transport.syncing import sync

_WAL = "-wal"
_SHM = "-shm"
_BEFORE, _AFTER = "before", "after"


class KeptDatabase:
    """Keeps the database of one program for the time of an upgrade; the program must be stopped.

    Attributes:
        folder: Where the copies lie.
    """

    def __init__(
        self, program: Program, state: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """Touch nothing yet.

        Args:
            program: Whose database it is.
            state: Its state directory, perhaps a link to it, perhaps not there yet.
            clock: Unix seconds.
        """
        self._program = program
        self._state = state.resolve()
        self._database = self._state / f"{program.name}.db"
        self._clock = clock
        self._kept_s = 0.0
        self.folder = self._state.with_name(f".{self._state.name}.upgrade")

    def keep(self) -> None:
        """Copy the database, if there is one.

        Raises:
            SetupError: It cannot be copied; nothing is left of the copy.
        """
        self.forget()
        if not os.path.lexists(self._database):
            return
        try:
            self._copy_to(_BEFORE)
        except OSError as error:
            self.forget()
            message = f"cannot keep a copy of {self._database}: {error}"
            raise SetupError(message) from error
        self._kept_s = self._clock()

    def put_back(self) -> bool:
        """Put the copy back if the database has been brought to a newer version since.

        A database that is gone or damaged is replaced as well.

        Returns:
            Whether it was.

        Raises:
            SetupError: It cannot be put back; the copy is kept then.
        """
        before = self.folder / _BEFORE / self._database.name
        if not before.is_file():
            return False
        try:
            if not self._is_newer_than(_version(before)):
                return False
            self._adapt(before)
            self._replace_by(before)
        except (OSError, sqlite3.Error) as error:
            message = f"cannot put {before} back as {self._database}: {error}"
            raise SetupError(message) from error
        return True

    def forget(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_to(self, name: str) -> Path:
        """Copy the database and what its log has beside it into a folder of its own."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        wal = self._database.with_name(self._database.name + _WAL)
        for path in (self._database, wal):
            if os.path.lexists(path):
                _copy(path, folder / path.name)
        for place in (folder, self.folder, self.folder.parent):
            sync(place)
        return folder / self._database.name

    def _is_newer_than(self, version: int) -> bool:
        if not os.path.lexists(self._database):
            return True
        try:
            return _version(self._copy_to(_AFTER)) > version
        except sqlite3.DatabaseError:
            return True

    def _adapt(self, database: Path) -> None:
        """Tell central that it has forgotten something, as after any restore."""
        if self._program.name != "central":
            return
        from fedfleet.backups.programs import CENTRAL, Restore  # noqa: PLC0415 - central alone

        replaced = self.folder / _AFTER / self._database.name
        restore = Restore(self._state, self._kept_s, self._clock(), replaced)
        with closing(sqlite3.connect(database)) as connection, connection:
            CENTRAL.adapt(connection, restore)

    def _replace_by(self, before: Path) -> None:
        """Put a whole database in place; the log of the newer one must be gone by then."""
        fresh = self._database.with_name(f".{self._database.name}.kept")
        fresh.unlink(missing_ok=True)
        _copy(before, fresh)
        for suffix in (_WAL, _SHM):
            self._database.with_name(self._database.name + suffix).unlink(missing_ok=True)
        fresh.replace(self._database)
        sync(self._state)


def _version(database: Path) -> int:
    """Return the version of a copy; what its log holds is in the file afterwards."""
    with closing(sqlite3.connect(database)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _copy(source: Path, target: Path) -> None:
    """Copy a plain file with its owner and mode; a link in the place of either is an error."""
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(read, "rb") as reader:
        found = os.fstat(read)
        if not stat.S_ISREG(found.st_mode):
            message = f"{source} is not a plain file"
            raise OSError(message)
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(write, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fchown(write, found.st_uid, found.st_gid)
            os.fchmod(write, stat.S_IMODE(found.st_mode))
            os.fsync(write)
