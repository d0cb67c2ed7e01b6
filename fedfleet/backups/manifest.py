"""The manifest of a backup: written last, so a directory without one is not a backup."""

import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedfleet.backups.programs import BackupError
from schemas.base import explain
from schemas.ids import Sha256
from schemas.limits import MIB
from transport.syncing import sync

NAME = "backup.json"


class BackedUpFile(BaseModel):
    """One file of a backup; its path is relative to the backup and never leads out of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(pattern=r"^[a-z]+(/[a-z]+)*(\.db|/[0-9a-f]{64})$")
    size: int = Field(ge=0)
    sha256: Sha256


class Manifest(BaseModel):
    """What a backup is of, when it was taken, and every file of it, the database first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    program: Literal["central", "gateway"]
    schema_version: int = Field(ge=1)
    created_s: float
    created: str
    fedfleet: str
    files: tuple[BackedUpFile, ...] = Field(min_length=1)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def write(self, backup_dir: Path) -> None:
        """Write it durably; the backup is then complete."""
        path = backup_dir / NAME
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        sync(path)
        sync(backup_dir)

    @classmethod
    def read(cls, backup_dir: Path) -> "Manifest":
        """Read a backup's manifest.

        Raises:
            BackupError: There is none, or it does not fit.
        """
        path = backup_dir / NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            message = f"{backup_dir} is no complete backup: it has no {NAME}"
            raise BackupError(message) from error
        except ValidationError as error:
            message = f"{path}: {explain(error, tuple(cls.model_fields))}"
            raise BackupError(message) from error


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> str:
    """Copy a file durably; return the SHA-256 of what was copied.

    Raises:
        FileNotFoundError: The source is not there; no target was made.
    """
    digest = hashlib.sha256()
    with source.open("rb") as original, target.open("wb") as copy:
        while block := original.read(MIB):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def check_database(connection: sqlite3.Connection, path: Path) -> None:
    """Look into every page of a database.

    Raises:
        BackupError: It is damaged; ``path`` is the one that is named.
    """
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        message = f"{path} is damaged: {found}"
        raise BackupError(message)
