"""Taking a backup while the program runs: the tables first, then the files that they name.

An object is written before the row that names it and removed after that row, and it never
changes. So whatever a snapshot names is there or was purged just now; then a newer snapshot
does not name it any more.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from fedfleet.backups.manifest import (
    BackedUpFile,
    Manifest,
    check_database,
    copy_file,
    digest_of,
)
from fedfleet.backups.programs import BackupError, Kind, kind_of
from transport.syncing import sync

Tell = Callable[[str], None]

_SNAPSHOTS = 5
_PAGES_A_STEP = 2000


def take_backup(state_dir: Path, backup_dir: Path, now_s: float, tell: Tell) -> Manifest:
    """Write a backup of central's or of a gateway's state.

    Args:
        state_dir: Its state directory; the program may be running.
        backup_dir: Where to; it must be empty or not there.
        now_s: Now, unix seconds.
        tell: Called with how far it is.

    Raises:
        BackupError: It cannot be taken; what was begun was removed again.
        OSError: A file cannot be read or written.
    """
    kind = kind_of(state_dir)
    if backup_dir.exists() and any(backup_dir.iterdir()):
        message = f"to: {backup_dir} is not empty; a backup needs a directory of its own"
        raise BackupError(message)
    existed = backup_dir.exists()
    backup_dir.mkdir(parents=True, exist_ok=True)
    try:
        return _take(kind, state_dir, backup_dir, now_s, tell)
    except BaseException:
        for entry in backup_dir.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not existed:
            backup_dir.rmdir()
        raise


def _take(kind: Kind, state_dir: Path, backup_dir: Path, now_s: float, tell: Tell) -> Manifest:
    source, snapshot = state_dir / kind.database, backup_dir / kind.database
    objects = backup_dir / kind.objects
    objects.mkdir(parents=True)
    for left in reversed(range(_SNAPSHOTS)):
        schema_version, named = _snapshot(kind, source, snapshot, tell)
        missing = _copy_objects(state_dir / kind.objects, objects, named, tell)
        if missing is None:
            break
        if not left:
            message = f"the tables name {missing}, which is not in {state_dir / kind.objects}"
            raise BackupError(message)
    for extra in {file.name for file in objects.iterdir()} - set(named):
        (objects / extra).unlink()
    sync(objects)
    sync(objects.parent)
    copies = [_described(objects / sha256, backup_dir, sha256) for sha256 in named]
    manifest = Manifest.model_validate(
        {
            "program": kind.name,
            "schema_version": schema_version,
            "created_s": now_s,
            "created": datetime.fromtimestamp(now_s, timezone.utc).isoformat(timespec="seconds"),
            "fedfleet": version("fedfleet"),
            "files": (_described(snapshot, backup_dir, digest_of(snapshot)), *copies),
        }
    )
    manifest.write(backup_dir)
    return manifest


def _snapshot(kind: Kind, source: Path, target: Path, tell: Tell) -> tuple[int, list[str]]:
    """Copy the database as of one moment; return its version and the objects that it names."""

    def progress(_status: int, remaining: int, total: int) -> None:
        tell(f"{kind.database}: {total - remaining} of {total} pages")

    target.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(target)) as copy:
            with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database:
                # The open transaction keeps this moment, however much is written meanwhile.
                database.execute("BEGIN")
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                database.backup(copy, pages=_PAGES_A_STEP, progress=progress, sleep=0.0)
            copy.execute("PRAGMA journal_mode = DELETE")
            check_database(copy, source)
            (schema_version,) = copy.execute("PRAGMA user_version").fetchone()
            named = [str(sha256) for (sha256,) in copy.execute(kind.named_objects)]
    except sqlite3.Error as error:
        message = f"{source} cannot be copied: {error}"
        raise BackupError(message) from error
    sync(target)
    return int(schema_version), named


def _copy_objects(source: Path, target: Path, named: list[str], tell: Tell) -> str | None:
    """Copy what is not there yet; return the first object that is gone, if one is."""
    for number, sha256 in enumerate(named, 1):
        tell(f"object {number} of {len(named)}")
        if (target / sha256).exists():
            continue
        try:
            found = copy_file(source / sha256, target / sha256)
        except FileNotFoundError:
            return sha256
        if found != sha256:
            message = f"{source / sha256} is damaged: its SHA-256 is {found}"
            raise BackupError(message)
    return None


def _described(path: Path, backup_dir: Path, sha256: str) -> BackedUpFile:
    relative = path.relative_to(backup_dir).as_posix()
    return BackedUpFile(path=relative, size=path.stat().st_size, sha256=sha256)
