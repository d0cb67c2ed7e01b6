"""A program's one SQLite connection, in which its state and its messages commit together.

WAL with ``synchronous=FULL``: a commit that returned survives a power cut. The connection is
autocommit (``isolation_level=None``); every change goes through ``transaction``. It may be handed
to another thread, but only one thread at a time may use it.
"""

import errno
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import MessageError
from transport.failpoints import failpoint

_BUSY_TIMEOUT_S = 10.0
_WAL_KEPT_BYTES = 16 * 1024 * 1024
_WAL_PAGES = 8000
#: One more than the largest boot that a frame's header can carry.
_BOOT_LIMIT = 1 << 53
_BOOT_SCHEMA = """
CREATE TABLE IF NOT EXISTS boot (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot INTEGER NOT NULL
);
"""
#: What SQLite says when the disk, not the statement, is at fault (error codes need Python 3.11).
_STORAGE_WORDS = (
    "disk is full",
    "is locked",
    "disk i/o error",
    "unable to open database file",
    "readonly database",
)
_STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DatabaseCorruptError(Exception):
    """A database file is damaged; the program must not go on with it.

    Attributes:
        path: The file.
        detail: What SQLite found.
    """

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(
            f"database {path} is damaged: {detail}; put a backup of central or of a gateway back "
            f"with: fedfleet restore --from BACKUP --state-dir {path.parent} --replace; "
            "a device does its jobs again once the file is moved away"
        )
        self.path = path
        self.detail = detail


class DatabaseVersionError(Exception):
    """A database file was written by another version of the program.

    Attributes:
        path: The file.
        found: Its schema version.
        expected: The version that this program reads.
    """

    def __init__(self, path: Path, found: int, expected: int) -> None:
        super().__init__(
            f"database {path} has schema version {found}, this program needs {expected}"
        )
        self.path = path
        self.found = found
        self.expected = expected


class DatabaseUnusableError(Exception):
    """A database file cannot be read or written now: the disk is full, or it is locked.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"database {path} cannot be used: {detail}; start again once it can")
        self.path = path


class TransactionLostError(sqlite3.OperationalError):
    """SQLite rolled the whole transaction back by itself, as it may when the disk is full."""


def open_database(
    path: Path, schema_sql: str, version: int, migrations: Mapping[int, str] | None = None
) -> sqlite3.Connection:
    """Open a database, creating it with its schema when it is new.

    Args:
        path: The file; missing directories above it are created.
        schema_sql: ``CREATE`` statements; run once, in one transaction.
        version: Schema version, above 0.
        migrations: Statements that lead to a version from the one before it; an older file is
            brought up to date in one transaction.

    Raises:
        DatabaseCorruptError: The file is damaged or is not a database.
        DatabaseVersionError: The file has another schema version.
        sqlite3.OperationalError: The file cannot be opened or is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _check_integrity(connection, path)
        _configure(connection)
        _create_or_migrate(connection, path, schema_sql, version, migrations or {})
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Name the file when SQLite ends a program: with damage, or before its loop can wait.

    Raises:
        DatabaseCorruptError: SQLite found the database damaged.
        DatabaseUnusableError: The disk is full, or the file is locked.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise DatabaseCorruptError(path, str(error)) from error
        if is_storage_failure(error):
            raise DatabaseUnusableError(path, str(error)) from error
        raise


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit what the block wrote, or roll it back when the block raises; does not nest.

    It begins deferred: a block that writes nothing costs no fsync.

    Raises:
        RuntimeError: A transaction is already open.
    """
    if connection.in_transaction:
        message = "transactions do not nest"
        raise RuntimeError(message)
    connection.execute("BEGIN DEFERRED")
    try:
        yield connection
        failpoint("transport.commit.before")
        connection.execute("COMMIT")
        failpoint("transport.commit.after")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Undo only this block's writes when it raises; used inside ``transaction``.

    Raises:
        TransactionLostError: SQLite has rolled the whole transaction back in the meantime.
    """
    connection.execute("SAVEPOINT step")
    try:
        yield
    except BaseException as error:
        if not connection.in_transaction:
            raise TransactionLostError(str(error)) from error
        connection.execute("ROLLBACK TO step")
        connection.execute("RELEASE step")
        raise
    if not connection.in_transaction:
        message = "the transaction was rolled back while it was in use"
        raise TransactionLostError(message)
    connection.execute("RELEASE step")


def is_storage_failure(error: BaseException) -> bool:
    """Tell whether a full disk or a lock is to blame, so that trying again later can help."""
    if isinstance(error, TransactionLostError):
        return True
    if isinstance(error, sqlite3.OperationalError):
        text = str(error).lower()
        return any(words in text for words in _STORAGE_WORDS)
    return isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS


def is_damage(error: BaseException) -> bool:
    """Tell whether the database file is damaged; no retry helps, the program must end."""
    return type(error) in {sqlite3.DatabaseError, DatabaseCorruptError}


def next_boot(connection: sqlite3.Connection, now_s: float) -> int:
    """Return this start's boot, ``max(persisted + 1, unix seconds)``, and persist it."""
    connection.execute(
        "INSERT INTO boot (one, boot) VALUES (1, ?)"
        " ON CONFLICT (one) DO UPDATE SET boot = max(boot + 1, excluded.boot)",
        (int(now_s),),
    )
    failpoint("transport.boot.persisted")
    return _boot(connection)


def adopt_boot(connection: sqlite3.Connection, newer: int) -> int:
    """Return the boot to go on with after somebody has seen ``newer`` from this program.

    A larger one than the persisted is adopted as ``newer + 1``, so that nothing left over from
    that earlier life, its Will least of all, counts as a word of this one.

    Raises:
        MessageError: ``newer`` leaves no room for a next boot.
    """
    if newer >= _BOOT_LIMIT - 1:
        message = f"boot: {newer} is more than {_BOOT_LIMIT - 2}"
        raise MessageError(message)
    connection.execute(
        "INSERT INTO boot (one, boot) VALUES (1, ? + 1)"
        " ON CONFLICT (one) DO UPDATE SET boot = excluded.boot WHERE boot < excluded.boot - 1",
        (newer,),
    )
    return _boot(connection)


def _boot(connection: sqlite3.Connection) -> int:
    (boot,) = connection.execute("SELECT boot FROM boot").fetchone()
    return int(boot)


def _check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    try:
        # Costs what quick_check costs, and finds what an index and its table disagree about.
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise DatabaseCorruptError(path, str(error)) from error
    if found != "ok":
        raise DatabaseCorruptError(path, str(found))


def _configure(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        message = f"unable to open database file in WAL mode: the file system gave {mode!r}"
        raise sqlite3.OperationalError(message)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Some builds overwrite what is deleted: a second write of every update that was delivered.
    connection.execute("PRAGMA secure_delete = OFF")
    # At SQLite's 1000 pages nearly every commit of a few updates would pay for a checkpoint.
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")


def _create_or_migrate(
    connection: sqlite3.Connection,
    path: Path,
    schema_sql: str,
    version: int,
    migrations: Mapping[int, str],
) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found == 0 and objects == 0:
        statements = f"{schema_sql}; {_BOOT_SCHEMA}"
    elif found == version:
        return
    elif all(step in migrations for step in range(found + 1, version + 1)) and found < version:
        statements = ";".join(migrations[step] for step in range(found + 1, version + 1))
    else:
        raise DatabaseVersionError(path, found, version)
    connection.executescript(f"BEGIN; {statements}; PRAGMA user_version = {version}; COMMIT;")
