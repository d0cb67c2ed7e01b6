"""The database: what commits, what is undone, and what must not be opened."""

import errno
import itertools
import sqlite3
from contextlib import closing

import pytest

from schemas.errors import MessageError
from transport.database import (
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    TransactionLostError,
    adopt_boot,
    explained,
    is_damage,
    is_storage_failure,
    next_boot,
    open_database,
    savepoint,
    transaction,
)

SCHEMA = "CREATE TABLE note (text TEXT NOT NULL)"


@pytest.fixture
def connection(tmp_path):
    opened = open_database(tmp_path / "deep" / "state.db", SCHEMA, 3)
    yield opened
    opened.close()


def notes(connection):
    return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY rowid")]


def fail_after_writing(connection, text):
    write(connection, text)
    raise KeyError


def write(connection, text):
    connection.execute("INSERT INTO note VALUES (?)", (text,))


def test_a_new_database_syncs_every_commit_and_checks_foreign_keys(connection):
    def pragma(name):
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1
    assert pragma("busy_timeout") == 10_000
    assert pragma("user_version") == 3


def test_what_was_committed_is_there_after_opening_again(tmp_path):
    path = tmp_path / "state.db"
    first = open_database(path, SCHEMA, 3)
    with transaction(first):
        write(first, "kept")
    first.close()
    second = open_database(path, SCHEMA, 3)
    assert notes(second) == ["kept"]
    second.close()


def test_another_schema_version_is_refused_with_both_numbers(tmp_path):
    path = tmp_path / "state.db"
    open_database(path, SCHEMA, 3).close()
    with pytest.raises(DatabaseVersionError, match=r"state\.db has schema version 3.*needs 4"):
        open_database(path, SCHEMA, 4)


def test_a_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "foreign.db"
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE thing (a)")
    foreign.close()
    with pytest.raises(DatabaseVersionError, match="version 0"):
        open_database(path, SCHEMA, 1)


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(DatabaseCorruptError, match=r"state\.db is damaged"):
        open_database(path, SCHEMA, 1)


def test_a_damaged_page_is_found_when_opening(tmp_path):
    path = tmp_path / "state.db"
    connection = open_database(path, SCHEMA, 1)
    with transaction(connection):
        for number in range(2000):
            write(connection, f"{number:06d}" * 10)
    connection.close()
    data = bytearray(path.read_bytes())
    data[8192 : 8192 + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(DatabaseCorruptError):
        open_database(path, SCHEMA, 1)


def test_a_failed_schema_leaves_nothing_behind(tmp_path):
    path = tmp_path / "state.db"
    with pytest.raises(sqlite3.OperationalError):
        open_database(path, "CREATE TABLE note (text TEXT); CREATE NONSENSE", 1)
    open_database(path, SCHEMA, 1).close()


def test_a_transaction_that_raises_leaves_nothing(connection):
    with pytest.raises(KeyError), transaction(connection):
        fail_after_writing(connection, "lost")
    assert notes(connection) == []
    assert not connection.in_transaction


def test_transactions_do_not_nest(connection):
    with (
        transaction(connection),
        pytest.raises(RuntimeError, match="nest"),
        transaction(connection),
    ):
        pass


def test_a_savepoint_undoes_only_its_own_writes(connection):
    with transaction(connection):
        write(connection, "before")
        with pytest.raises(KeyError), savepoint(connection):
            fail_after_writing(connection, "undone")
        with savepoint(connection):
            write(connection, "after")
    assert notes(connection) == ["before", "after"]


def test_a_savepoint_notices_that_the_whole_transaction_is_gone(connection):
    connection.execute("BEGIN")
    with pytest.raises(TransactionLostError), savepoint(connection):
        connection.execute("ROLLBACK")


def test_the_log_of_commits_stays_within_bounds_however_much_is_written(tmp_path):
    path = tmp_path / "state.db"
    connection = open_database(path, "CREATE TABLE blobs (one BLOB)", 1)
    wal = path.with_name("state.db-wal")
    sizes = []
    for _ in range(400):
        with transaction(connection):
            connection.execute("INSERT INTO blobs VALUES (?)", (bytes(250_000),))
            connection.execute("DELETE FROM blobs WHERE rowid < (SELECT max(rowid) FROM blobs)")
        sizes.append(wal.stat().st_size)
    assert sum(b > a for a, b in itertools.pairwise(sizes)) > 100
    assert max(sizes) < 40_000_000
    assert path.stat().st_size < 10_000_000
    connection.close()


def test_a_transaction_without_writes_leaves_the_file_alone(tmp_path):
    path = tmp_path / "state.db"
    connection = open_database(path, SCHEMA, 1)
    wal = path.with_name("state.db-wal")
    before = wal.stat().st_size
    with transaction(connection):
        notes(connection)
        with savepoint(connection):
            notes(connection)
    assert wal.stat().st_size == before
    connection.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.OperationalError("disk I/O error"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (sqlite3.OperationalError("no such table: nonsense"), False),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (ValueError("disk is full"), False),
    ],
)
def test_only_the_disk_counts_as_a_storage_failure(error, expected):
    assert is_storage_failure(error) is expected


def test_only_damage_counts_as_damage():
    assert is_damage(sqlite3.DatabaseError("database disk image is malformed"))
    assert not is_damage(sqlite3.OperationalError("database is locked"))
    assert not is_damage(sqlite3.IntegrityError("UNIQUE constraint failed"))


def test_boots_only_grow_even_when_the_clock_goes_back(connection):
    assert next_boot(connection, 1000.9) == 1000
    assert next_boot(connection, 1000.9) == 1001
    assert next_boot(connection, 5.0) == 1002
    assert next_boot(connection, 2000.0) == 2000


def test_a_larger_boot_is_adopted_and_passed(connection):
    assert next_boot(connection, 10.0) == 10
    assert adopt_boot(connection, 50) == 51
    assert next_boot(connection, 10.0) == 52


def test_the_own_or_a_smaller_boot_changes_nothing(connection):
    assert next_boot(connection, 10.0) == 10
    assert adopt_boot(connection, 10) == 10
    assert adopt_boot(connection, 3) == 10


def test_a_boot_without_a_successor_is_refused(connection):
    next_boot(connection, 10.0)
    with pytest.raises(MessageError, match="boot"):
        adopt_boot(connection, (1 << 53) - 1)
    assert next_boot(connection, 10.0) == 11


def test_an_older_database_is_brought_up_to_date_and_keeps_its_rows(tmp_path):
    path = tmp_path / "state.db"
    old = open_database(path, SCHEMA, 3)
    with transaction(old):
        write(old, "kept")
    old.close()
    steps = {4: "ALTER TABLE note ADD COLUMN mark TEXT", 5: "CREATE TABLE other (x INTEGER)"}
    new = open_database(path, "never used", 5, steps)
    assert new.execute("SELECT text, mark FROM note").fetchall() == [("kept", None)]
    assert new.execute("SELECT count(*) FROM other").fetchone() == (0,)
    assert new.execute("PRAGMA user_version").fetchone() == (5,)
    new.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path):
    path = tmp_path / "state.db"
    open_database(path, SCHEMA, 3).close()
    steps = {4: "CREATE TABLE other (x INTEGER); SELECT * FROM nowhere"}
    with pytest.raises(sqlite3.OperationalError):
        open_database(path, SCHEMA, 4, steps)
    again = open_database(path, SCHEMA, 3)
    assert again.execute("SELECT count(*) FROM sqlite_master WHERE name = 'other'").fetchone() == (
        0,
    )
    again.close()


def test_a_newer_database_and_a_gap_in_the_migrations_are_refused(tmp_path):
    path = tmp_path / "state.db"
    open_database(path, SCHEMA, 3).close()
    for version, steps in ((2, {2: ""}), (5, {5: "SELECT 1"})):
        with pytest.raises(DatabaseVersionError):
            open_database(path, SCHEMA, version, steps)


def filled(path):
    """A database with a table, an index and rows that overflow; closed, so that it is one file."""
    schema = "CREATE TABLE note (text TEXT NOT NULL); CREATE INDEX by_text ON note (text)"
    opened = open_database(path, schema, 1)
    with transaction(opened):
        for number in range(800):
            write(opened, f"{number:06d}" * (4 if number % 50 else 2000))
    opened.close()
    return path.read_bytes()


def roots(path):
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT name, rootpage FROM sqlite_master"))


def leaf_below(data, root):
    """Return the number of the first leaf page under a page of a b-tree."""
    page = root
    while data[(page - 1) * 4096] in (2, 5):  # an interior page: its first cell points down
        start = (page - 1) * 4096
        cell = int.from_bytes(data[start + 12 : start + 14], "big")
        page = int.from_bytes(data[start + cell : start + cell + 4], "big")
    return page


@pytest.mark.parametrize("name", ["note", "by_text"])
@pytest.mark.parametrize("place", ["kind of page", "number of cells", "place of a cell"])
def test_one_flipped_byte_in_the_structure_of_a_table_or_an_index_is_found(tmp_path, name, place):
    path = tmp_path / "state.db"
    data = bytearray(filled(path))
    start = (leaf_below(data, roots(path)[name]) - 1) * 4096
    data[start + {"kind of page": 0, "number of cells": 3, "place of a cell": 8}[place]] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(DatabaseCorruptError, match=r"fedfleet restore --from BACKUP --state-dir"):
        open_database(path, "", 1)


def test_an_index_that_disagrees_with_its_table_is_found(tmp_path):
    """``quick_check`` does not look at this; the whole check costs about the same."""
    path = tmp_path / "state.db"
    data = bytearray(filled(path))
    start = (leaf_below(data, roots(path)["by_text"]) - 1) * 4096
    place = data.index(b"000001000001", start, start + 4096)
    data[place + 5 : place + 6] = b"2"
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    with pytest.raises(DatabaseCorruptError, match="by_text"):
        open_database(path, "", 1)


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (
            sqlite3.DatabaseError("image is malformed"),
            DatabaseCorruptError,
            r"state\.db.*malformed",
        ),
        (sqlite3.OperationalError("disk is full"), DatabaseUnusableError, r"state\.db.*is full"),
        (sqlite3.IntegrityError("UNIQUE failed"), sqlite3.IntegrityError, "UNIQUE"),
    ],
)
def test_what_sqlite_raises_is_explained_with_the_file(tmp_path, error, expected, text):
    with pytest.raises(expected, match=text), explained(tmp_path / "state.db"):
        raise error


def test_a_damaged_page_that_is_met_later_is_raised_as_damage(tmp_path):
    path = tmp_path / "state.db"
    size = len(filled(path))
    opened = open_database(path, "", 1)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    opened.execute("PRAGMA shrink_memory")
    with pytest.raises(DatabaseCorruptError), explained(path), transaction(opened):
        opened.execute("SELECT count(*) FROM note WHERE text > '0'").fetchone()
    opened.close()
