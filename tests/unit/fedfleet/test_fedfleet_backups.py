"""Backup and restore: consistent while the program writes, checked before anything is touched."""

import hashlib
import json
import shutil
import sqlite3
import threading

import pytest
from click.testing import CliRunner

from central.adapters import store as central_store
from fedfleet.backups.manifest import NAME, Manifest
from fedfleet.backups.programs import BackupError
from fedfleet.backups.restoring import restore_backup
from fedfleet.backups.taking import take_backup
from fedfleet.cli import cli
from regional_gateway.adapters import store as gateway_store
from transport.database import open_database, transaction
from transport.objects import ObjectStore
from transport.outbox import Outbox, OutboxEntry
from transport.state_lock import StateLock

NOW_S = 1_700_000_000.0
MODEL = b"model" * 1000
LARGE = b"large update" * 40_000


def quiet(_):
    return None


def central_at(state_dir, rounds=1):
    """Make central's state: a task, rounds with one contribution each, half of them files."""
    objects = ObjectStore(state_dir)
    model = objects.put(MODEL, durable=False)
    opened = open_database(
        state_dir / "central.db", central_store.SCHEMA, central_store.SCHEMA_VERSION
    )
    with transaction(opened):
        opened.execute(
            "INSERT INTO tasks (task, submission, min_clients, created_s, progress, model_sha256,"
            " metrics, totals) VALUES ('t', '{}', 1, 0, '{}', ?, '{}', '{}')",
            (model,),
        )
    for number in range(1, rounds + 1):
        add_round(opened, objects, number)
    return opened, objects


def add_round(opened, objects, number):
    payload = b"%d" % number + LARGE
    sha256 = hashlib.sha256(payload).hexdigest()
    if number % 2:
        objects.put(payload, durable=False)
    with transaction(opened):
        model = opened.execute("SELECT model_sha256 FROM tasks").fetchone()[0]
        opened.execute(
            "INSERT INTO rounds (task, round, state, base_model_sha256, base_model_bytes,"
            " opened_s) VALUES ('t', ?, '{}', ?, 1, 0)",
            (number, model),
        )
        opened.execute(
            "INSERT INTO contributions (task, round, device, region, xfer, sha256, size,"
            " num_examples, metrics, accepted_s) VALUES ('t', ?, 'd', 'eu', ?, ?, ?, 1, '{}', 0)",
            (number, f"x{number}", sha256, len(payload)),
        )
        if not number % 2:
            opened.execute("INSERT INTO payloads VALUES ('t', ?, 'd', ?)", (number, payload))


def forget_round(opened, objects, number):
    with transaction(opened):
        (sha256,) = opened.execute(
            "SELECT sha256 FROM contributions WHERE round = ?", (number,)
        ).fetchone()
        opened.execute("DELETE FROM rounds WHERE round = ?", (number,))
    objects.remove(sha256)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def backup(tmp_path):
    opened, _ = central_at(tmp_path / "central", 3)
    opened.close()
    take_backup(tmp_path / "central", tmp_path / "backup", NOW_S, quiet)
    return tmp_path / "backup"


def test_a_backup_has_the_database_and_the_objects_that_it_names_and_no_others(tmp_path):
    opened, objects = central_at(tmp_path / "central", 3)
    objects.put(b"nobody names it", durable=False)
    manifest = take_backup(tmp_path / "central", tmp_path / "backup", NOW_S, quiet)
    opened.close()
    assert manifest == Manifest.read(tmp_path / "backup")
    assert (manifest.program, manifest.schema_version) == ("central", central_store.SCHEMA_VERSION)
    assert manifest.created == "2023-11-14T22:13:20+00:00"
    found = files_of(tmp_path / "backup")
    assert set(found) == {file.path for file in manifest.files} | {NAME}
    assert len(found) == 2 + 3  # the model, rounds 1 and 3; round 2 lies in the database
    for file in manifest.files:
        assert hashlib.sha256(found[file.path]).hexdigest() == file.sha256
        assert len(found[file.path]) == file.size


def test_a_backup_that_is_taken_while_rounds_come_and_go_is_whole(tmp_path):
    opened, objects = central_at(tmp_path / "central", 6)
    stop, newest = threading.Event(), [6]

    def write():
        while not stop.wait(0.02):
            newest[0] += 1
            add_round(opened, objects, newest[0])
            forget_round(opened, objects, newest[0] - 6)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            before = newest[0]
            manifest = take_backup(tmp_path / "central", tmp_path / f"b{number}", NOW_S, quiet)
            restore_backup(
                tmp_path / f"b{number}", tmp_path / f"r{number}", NOW_S, quiet, replace=False
            )
            assert newest[0] > before
            restored = sqlite3.connect(tmp_path / f"r{number}" / "central.db")
            rounds = [n for (n,) in restored.execute("SELECT round FROM rounds ORDER BY round")]
            restored.close()
            assert rounds == list(range(rounds[0], rounds[0] + len(rounds)))
            assert 6 <= len(rounds) <= 7
            assert len(manifest.files) == 2 + sum(n % 2 for n in rounds)
    finally:
        stop.set()
        writer.join()
        opened.close()


def test_a_target_that_is_not_empty_is_refused_and_left_alone(tmp_path, backup):
    before = files_of(backup)
    with pytest.raises(BackupError, match="is not empty"):
        take_backup(tmp_path / "central", backup, NOW_S, quiet)
    assert files_of(backup) == before


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_an_object_that_is_missing_or_damaged_is_named_and_nothing_is_left(tmp_path, damage):
    opened, objects = central_at(tmp_path / "central", 1)
    path = next(file for file in (objects.root / "objects").iterdir())
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(BackupError, match=path.name):
        take_backup(tmp_path / "central", tmp_path / "backup", NOW_S, quiet)
    assert not (tmp_path / "backup").exists()
    opened.close()


def test_a_damaged_database_makes_no_backup(tmp_path):
    opened, _ = central_at(tmp_path / "central", 4)
    opened.close()
    path = tmp_path / "central" / "central.db"
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 4 * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(BackupError, match=r"central\.db"):
        take_backup(tmp_path / "central", tmp_path / "backup", NOW_S, quiet)
    assert not (tmp_path / "backup").exists()


def test_a_directory_that_is_neither_centrals_nor_a_gateways_is_refused(tmp_path):
    with pytest.raises(BackupError, match=r"neither central\.db nor gateway\.db"):
        take_backup(tmp_path, tmp_path / "backup", NOW_S, quiet)
    (tmp_path / "device.db").touch()
    with pytest.raises(BackupError, match="needs no backup"):
        take_backup(tmp_path, tmp_path / "backup", NOW_S, quiet)


def test_central_is_restored_with_a_mark(tmp_path, backup):
    done = restore_backup(backup, tmp_path / "new", NOW_S + 60, quiet, replace=False)
    assert done.replaced is None
    restored = sqlite3.connect(tmp_path / "new" / "central.db")
    marks = restored.execute("SELECT at_s, backup_s, epoch, handled FROM restores").fetchall()
    assert marks == [(NOW_S + 60, NOW_S, 1, 0)]
    assert restored.execute("SELECT count(*) FROM contributions").fetchone() == (3,)
    restored.close()
    objects = {p: d for p, d in files_of(backup).items() if p.startswith("objects/")}
    assert objects.items() <= files_of(tmp_path / "new").items()


def damage_a_file(backup):
    path = backup / Manifest.read(backup).files[-1].path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return path.name


def lose_a_file(backup):
    path = backup / Manifest.read(backup).files[-1].path
    path.unlink()
    return path.name


def damage_the_database(backup):
    path = backup / "central.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "central.db"


def lose_the_manifest(backup):
    (backup / NAME).unlink()
    return NAME


def lead_out_of_the_backup(backup):
    told = json.loads((backup / NAME).read_text())
    told["files"][1]["path"] = "../objects/" + "0" * 64
    (backup / NAME).write_text(json.dumps(told))
    return "path"


def leave_an_object_out(backup):
    told = json.loads((backup / NAME).read_text())
    left_out = told["files"].pop()
    (backup / NAME).write_text(json.dumps(told))
    return left_out["sha256"]


def come_from_the_future(backup):
    told = json.loads((backup / NAME).read_text())
    (backup / NAME).write_text(json.dumps({**told, "schema_version": 99}))
    return "schema_version"


@pytest.mark.parametrize(
    "harm",
    [
        damage_a_file,
        lose_a_file,
        damage_the_database,
        lose_the_manifest,
        lead_out_of_the_backup,
        leave_an_object_out,
        come_from_the_future,
    ],
)
def test_a_backup_that_is_not_whole_is_named_before_anything_is_touched(tmp_path, backup, harm):
    named = harm(backup)
    before = files_of(tmp_path / "central")
    with pytest.raises(BackupError, match=named):
        restore_backup(backup, tmp_path / "central", NOW_S, quiet, replace=True)
    assert files_of(tmp_path / "central") == before
    with pytest.raises(BackupError, match=named):
        restore_backup(backup, tmp_path / "new", NOW_S, quiet, replace=False)
    assert not (tmp_path / "new").exists()


def test_a_state_that_is_there_stays_unless_it_may_be_replaced(tmp_path, backup):
    state_dir = tmp_path / "central"
    before = files_of(state_dir)
    with pytest.raises(BackupError, match="--replace"):
        restore_backup(backup, state_dir, NOW_S, quiet, replace=False)
    assert {p: d for p, d in files_of(state_dir).items() if p != "lock"} == before


def test_a_replaced_state_is_moved_aside_and_its_epoch_is_passed(tmp_path, backup):
    state_dir = tmp_path / "central"
    before = files_of(state_dir)
    first = restore_backup(backup, state_dir, NOW_S, quiet, replace=True).replaced
    assert first == state_dir / "replaced-20231114T221320Z"
    assert files_of(first) == before
    second = restore_backup(backup, state_dir, NOW_S, quiet, replace=True).replaced
    assert second != first
    assert files_of(first) == before
    assert (second / "central.db").is_file()
    restored = sqlite3.connect(state_dir / "central.db")
    assert restored.execute("SELECT epoch FROM restores").fetchall() == [(2,)]
    restored.close()
    assert not list(state_dir.glob("restoring-*"))


def test_a_damaged_state_can_be_replaced(tmp_path, backup):
    state_dir = tmp_path / "central"
    (state_dir / "central.db").write_bytes(b"no database" * 1000)
    restore_backup(backup, state_dir, NOW_S, quiet, replace=True)
    opened = open_database(state_dir / "central.db", "", central_store.SCHEMA_VERSION)
    assert opened.execute("SELECT epoch FROM restores").fetchall() == [(1,)]
    opened.close()


def test_the_state_of_a_running_program_is_not_replaced(tmp_path, backup):
    before = files_of(tmp_path / "central")
    with StateLock(tmp_path / "central"):
        with pytest.raises(BackupError, match="is in use"):
            restore_backup(backup, tmp_path / "central", NOW_S, quiet, replace=True)
        shutil.copytree(tmp_path / "central", tmp_path / "seen")
    (tmp_path / "seen" / "lock").unlink()
    assert files_of(tmp_path / "seen") == before


def test_a_gateways_custody_finds_its_files_where_it_is_restored(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    objects = ObjectStore(old / "custody")
    sha256 = objects.put(LARGE, durable=False)
    opened = open_database(old / "gateway.db", gateway_store.SCHEMA, gateway_store.SCHEMA_VERSION)
    with transaction(opened):
        for number, path in ((1, objects.path(sha256)), (2, None)):
            Outbox(opened).add(
                OutboxEntry(
                    f"x{number}", "t", 1, "d", b"frame", sha256, len(LARGE), 0.0, path, 65536
                )
            )
    take_backup(old, tmp_path / "backup", NOW_S, quiet)
    opened.close()
    shutil.rmtree(old)
    restore_backup(tmp_path / "backup", new, NOW_S, quiet, replace=False)
    opened = open_database(new / "gateway.db", "", gateway_store.SCHEMA_VERSION)
    entry = Outbox(opened).get("x1")
    assert entry.path == ObjectStore(new.resolve() / "custody").path(sha256)
    assert entry.path.read_bytes() == LARGE
    assert Outbox(opened).get("x2").path is None
    opened.close()


def test_the_verbs_say_what_they_did_and_exit_with_one_when_they_refuse(tmp_path):
    opened, _ = central_at(tmp_path / "central", 1)
    opened.close()
    state, backup = str(tmp_path / "central"), str(tmp_path / "backup")
    run = CliRunner().invoke
    took = run(cli, ["backup", "--state-dir", state, "--to", backup, "--json"])
    assert took.exit_code == 0, took.output
    told = json.loads(took.stdout)
    assert (told["program"], told["files"], told["to"]) == ("central", 3, backup)
    assert told["bytes"] > len(LARGE)
    again = run(cli, ["backup", "--state-dir", state, "--to", backup])
    assert again.exit_code == 1
    assert "is not empty" in again.output
    refused = run(cli, ["restore", "--from", backup, "--state-dir", state])
    assert (refused.exit_code, "--replace" in refused.output) == (1, True)
    put = run(cli, ["restore", "--from", backup, "--state-dir", state, "--replace", "--json"])
    assert put.exit_code == 0, put.output
    told = json.loads(put.stdout)
    assert (told["program"], told["state_dir"]) == ("central", state)
    assert told["replaced"].startswith(f"{state}/replaced-")
    assert run(cli, ["restore", "--state-dir", state]).exit_code == 2
    words = run(cli, ["backup", "--state-dir", state, "--to", f"{backup}2"])
    assert "central's state of" in words.stdout
