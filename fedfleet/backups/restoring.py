"""Putting a backup back: everything is checked before anything is touched.

The new state is made ready beside the old one, inside the state directory, which may be a mount
of its own. The old one is moved aside and never deleted. The database comes last.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from fedfleet.backups.manifest import Manifest, check_database, copy_file, digest_of
from fedfleet.backups.programs import KINDS, BackupError, Kind, Restore
from transport.database import DatabaseVersionError, open_database, transaction
from transport.state_lock import StateLock, StateLockedError
from transport.syncing import sync

Tell = Callable[[str], None]

_LOCK = "lock"
_ASIDE = "replaced-"
_STAGING = "restoring-"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back.

    Attributes:
        manifest: The backup's.
        replaced: Where the old state is now; None: there was none.
    """

    manifest: Manifest
    replaced: Path | None


@dataclass(frozen=True, slots=True)
class _Job:
    manifest: Manifest
    kind: Kind
    backup_dir: Path
    state_dir: Path
    now_s: float
    tell: Tell


def restore_backup(
    backup_dir: Path, state_dir: Path, now_s: float, tell: Tell, *, replace: bool
) -> Restored:
    """Put a backup into a state directory; the program must not run.

    Args:
        backup_dir: A directory that ``take_backup`` wrote.
        state_dir: Where the program will look for its state.
        now_s: Now, unix seconds.
        tell: Called with how far it is.
        replace: Whether a state that is there may be moved aside.

    Raises:
        BackupError: The backup is not whole, the program runs, or there is a state already.
        OSError: A file cannot be read or written.
    """
    manifest = Manifest.read(backup_dir)
    job = _Job(manifest, KINDS[manifest.program], backup_dir, state_dir, now_s, tell)
    _check_files(job)
    _check_tables(job)
    try:
        with StateLock(state_dir):
            return Restored(manifest, _restore(job, replace=replace))
    except StateLockedError as error:
        raise BackupError(str(error)) from error


def _check_files(job: _Job) -> None:
    files = job.manifest.files
    for number, file in enumerate(files, 1):
        job.tell(f"checking file {number} of {len(files)}")
        path = job.backup_dir / file.path
        if not path.is_file():
            message = f"the backup is not whole: {path} is missing"
            raise BackupError(message)
        found = digest_of(path)
        if found != file.sha256:
            message = f"the backup is damaged: {path} has SHA-256 {found}, not {file.sha256}"
            raise BackupError(message)


def _check_tables(job: _Job) -> None:
    manifest, kind = job.manifest, job.kind
    if manifest.schema_version > kind.version:
        message = (
            f"schema_version: the backup has {manifest.schema_version}, this program reads up to "
            f"{kind.version}; it was taken by fedfleet {manifest.fedfleet}"
        )
        raise BackupError(message)
    database = job.backup_dir / kind.database
    uri = f"file:{database}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            check_database(connection, database)
            named = {str(sha256) for (sha256,) in connection.execute(kind.named_objects)}
    except sqlite3.Error as error:
        message = f"the backup is damaged: {database}: {error}"
        raise BackupError(message) from error
    missing = named - {Path(file.path).name for file in manifest.files}
    if missing:
        message = f"the backup is not whole: its tables name {min(missing)}, which it lacks"
        raise BackupError(message)


def _restore(job: _Job, *, replace: bool) -> Path | None:
    old = [entry for entry in sorted(job.state_dir.iterdir()) if not _is_ours(entry)]
    if old and not replace:
        message = f"state_dir: {job.state_dir} is not empty; --replace moves what is there aside"
        raise BackupError(message)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=job.state_dir))
    try:
        _stage(job, staging)
        aside = _move_aside(job, old) if old else None
        _move_in(job, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync(job.state_dir)
    return aside


def _is_ours(entry: Path) -> bool:
    return entry.name == _LOCK or entry.name.startswith((_ASIDE, _STAGING))


def _stage(job: _Job, staging: Path) -> None:
    """Make the new state ready in ``staging``: copied, checked again, adapted, on disk."""
    objects = staging / job.kind.objects
    objects.mkdir(parents=True)
    for number, file in enumerate(job.manifest.files, 1):
        job.tell(f"copying file {number} of {len(job.manifest.files)}")
        if copy_file(job.backup_dir / file.path, staging / file.path) != file.sha256:
            message = f"the backup changed while it was read: {job.backup_dir / file.path}"
            raise BackupError(message)
    sync(objects)
    sync(objects.parent)
    kind = job.kind
    restore = Restore(
        job.state_dir, job.manifest.created_s, job.now_s, job.state_dir / kind.database
    )
    try:
        database = staging / kind.database
        opened = open_database(database, kind.schema, kind.version, kind.migrations)
    except DatabaseVersionError as error:
        raise BackupError(str(error)) from error
    with closing(opened) as connection, transaction(connection):
        kind.adapt(connection, restore)


def _move_aside(job: _Job, old: list[Path]) -> Path:
    moment = datetime.fromtimestamp(job.now_s, timezone.utc)
    stem = f"{_ASIDE}{moment:%Y%m%dT%H%M%SZ}"
    taken = len(list(job.state_dir.glob(f"{stem}*")))
    aside = job.state_dir / (f"{stem}-{taken + 1}" if taken else stem)
    aside.mkdir()
    for entry in sorted(old, key=lambda entry: entry.name.startswith(job.kind.database)):
        entry.replace(aside / entry.name)
    sync(aside)
    return aside


def _move_in(job: _Job, staging: Path) -> None:
    """Move the new state to where the program looks for it, the database last."""
    for entry in sorted(staging.iterdir(), key=lambda entry: entry.name == job.kind.database):
        entry.replace(job.state_dir / entry.name)
