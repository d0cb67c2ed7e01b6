"""The database as it was before an upgrade: kept, put back when it must be, forgotten."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from central.adapters import store as central_store
from fedfleet.machine_setup.actions import PointTo, Source, Systemctl
from fedfleet.machine_setup.kept_database import KeptDatabase
from fedfleet.machine_setup.layout import PROGRAMS, SetupError
from fedfleet.machine_setup.plan import Seen, Venv
from fedfleet.machine_setup.upgrading import Upgrade, UpgradeFailedError
from transport.database import DatabaseVersionError, open_database

DEVICE, CENTRAL = PROGRAMS["device"], PROGRAMS["central"]
SCHEMA = "CREATE TABLE words (word TEXT)"
MIGRATION = {2: "ALTER TABLE words ADD COLUMN said_s REAL"}


def say(database, version, word):
    with closing(open_database(database, SCHEMA, version, MIGRATION)) as connection:
        connection.execute("INSERT INTO words (word) VALUES (?)", (word,))


def words(database, version=1):
    with closing(open_database(database, SCHEMA, version)) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words")]


@pytest.fixture
def database(tmp_path):
    """The state as systemd keeps it: the directory is private, the well-known name a link."""
    state = tmp_path / "var/lib/private/fedfleet-device"
    state.mkdir(parents=True)
    (tmp_path / "var/lib/fedfleet-device").symlink_to("private/fedfleet-device")
    say(state / "device.db", 1, "before")
    (state / "device.db").chmod(0o600)
    return state / "device.db"


@pytest.fixture
def kept(database):
    return KeptDatabase(DEVICE, database.parents[2] / "fedfleet-device")


class Machine:
    """Runs version 0.2.0 as far as its database; what it does is ``start``'s."""

    def __init__(self, root, start):
        self.root = root
        self.start = start
        self.current = "0.1.0"
        self.done = []

    def look(self):
        venvs = {v: Venv(frozenset({"device"}), None) for v in ("0.1.0", "0.2.0")}
        return Seen(files={DEVICE.unit_path: ""}, venvs=venvs, current="0.1.0")

    def real(self, path):
        return self.root / path.relative_to("/")

    def perform(self, action):
        self.done.append(str(action))
        if isinstance(action, PointTo):
            self.current = action.version
        if isinstance(action, Systemctl) and action.arguments[0] == "start":
            self.start(self.current)


class Service:
    def __init__(self, machine, healthy):
        self.machine = machine
        self.healthy = healthy

    def wait_healthy(self, wait_s):
        return None if self.machine.current in self.healthy else "it is activating"

    def log_lines(self):
        return []


def upgrade(root, start, healthy):
    machine = Machine(root, start)
    Upgrade(DEVICE, machine, Service(machine, healthy), 60.0, lambda _: None).to(Source("0.2.0"))
    return machine


def test_a_roll_back_gives_the_version_before_a_database_that_it_reads(tmp_path, database):
    def start(version):
        if version == "0.2.0":
            say(database, 2, "newer")
        else:
            say(database, 1, "again")

    with pytest.raises(UpgradeFailedError, match=r"runs again, with its database of before"):
        upgrade(tmp_path, start, {"0.1.0"})
    assert words(database) == ["before", "again"]
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert [p.name for p in database.parents[1].iterdir()] == ["fedfleet-device"]


def test_a_database_of_the_same_version_is_kept_with_what_was_done_meanwhile(tmp_path, database):
    def start(version):
        say(database, 1, version)

    with pytest.raises(UpgradeFailedError, match=r"0\.1\.0 runs again\."):
        upgrade(tmp_path, start, {"0.1.0"})
    assert words(database) == ["before", "0.2.0", "0.1.0"]


def test_an_upgrade_that_succeeds_leaves_no_copy(tmp_path, database):
    upgrade(tmp_path, lambda _: say(database, 2, "newer"), {"0.2.0"})
    assert words(database, 2) == ["before", "newer"]
    assert [p.name for p in database.parents[1].iterdir()] == ["fedfleet-device"]


def test_a_database_that_cannot_be_kept_leaves_the_version_in_use(tmp_path, database):
    database.unlink()
    database.symlink_to("/etc/passwd")
    started = []
    with pytest.raises(SetupError, match="cannot keep a copy"):
        upgrade(tmp_path, started.append, {"0.2.0"})
    assert started == ["0.1.0"]


def test_a_version_that_cannot_be_started_is_taken_back(tmp_path, database):
    def start(version):
        if version == "0.2.0":
            message = "systemctl start failed"
            raise SetupError(message)

    with pytest.raises(UpgradeFailedError, match=r"start failed.* 0\.1\.0 runs again"):
        upgrade(tmp_path, start, {"0.1.0"})


def test_what_the_log_beside_the_database_holds_is_kept_and_that_of_the_newer_is_dropped(
    kept, database
):
    with closing(open_database(database, SCHEMA, 1)) as killed:
        killed.execute("INSERT INTO words VALUES ('in the log')")
        kept.keep()
    with closing(open_database(database, SCHEMA, 2, MIGRATION)) as newer:
        newer.execute("INSERT INTO words VALUES ('newer', 1.0)")
        wal = database.with_name("device.db-wal").read_bytes()
    database.with_name("device.db-wal").write_bytes(wal)  # as a kill leaves it
    assert kept.put_back()
    assert words(database) == ["before", "in the log"]


def test_a_damaged_or_lost_database_is_replaced(kept, database):
    kept.keep()
    database.write_bytes(b"no database at all" * 100)
    assert kept.put_back()
    kept.keep()
    database.unlink()
    assert kept.put_back()
    assert words(database) == ["before"]


def test_a_copy_is_for_root_alone_and_no_link_is_followed(kept, database, tmp_path):
    kept.keep()
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert kept.folder.parent == database.parents[1]
    say(database, 2, "newer")
    aim = tmp_path / "aim"
    database.with_name(".device.db.kept").symlink_to(aim)
    assert kept.put_back()
    assert not aim.exists()
    assert not database.is_symlink()


def test_without_a_database_there_is_nothing_to_keep(tmp_path):
    kept = KeptDatabase(DEVICE, tmp_path / "fedfleet-device")
    kept.keep()
    assert (kept.put_back(), list(tmp_path.iterdir())) == (False, [])


def test_central_is_told_that_it_has_forgotten_something(tmp_path):
    state = tmp_path / "fedfleet-central"
    database = state / "central.db"
    store = (central_store.SCHEMA, central_store.SCHEMA_VERSION)
    open_database(database, *store).close()
    kept = KeptDatabase(CENTRAL, state, clock=iter((10.0, 20.0)).__next__)
    kept.keep()
    with closing(sqlite3.connect(database)) as newer:
        newer.execute("PRAGMA user_version = 99")
        newer.execute("INSERT INTO restores VALUES (1.0, 1.0, 4, 1)")
        newer.commit()
    with pytest.raises(DatabaseVersionError):
        open_database(database, *store)
    assert kept.put_back()
    with closing(open_database(database, *store)) as connection:
        found = connection.execute("SELECT at_s, backup_s, epoch, handled FROM restores")
        assert found.fetchall() == [(20.0, 10.0, 5, 0)]


def test_the_owner_is_kept(kept, database, monkeypatch):
    if os.geteuid() == 0:  # anybody else owns it already, and may give it to nobody else
        os.chown(database, 61234, 61235)
    found = database.stat()
    owner, given, give = (found.st_uid, found.st_gid), [], os.fchown

    def noted(file, user, group):
        given.append((user, group))
        give(file, user, group)

    monkeypatch.setattr(os, "fchown", noted)
    kept.keep()
    say(database, 2, "newer")
    assert kept.put_back()
    found = Path(database).stat()
    assert (found.st_uid, found.st_gid) == owner
    assert given
    assert set(given) == {owner}
