"""The program's database: whole, of a known version, and whose it is at the moment.

It is opened for reading only, and the state directory's lock is looked at, never taken.
"""

import os
import sqlite3
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path

from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.subject import Subject

_CHECK = "database"
_LOCK = "lock"
_LOCKS = Path("/proc/locks")
_STORES = {
    "device": "device_agent.adapters.store",
    "gateway": "regional_gateway.adapters.store",
    "central": "central.adapters.store",
}
#: SQLite asks whether to go on after so many steps of its machine.
_STEPS = 10_000


def examine_owner(state_dir: Path) -> list[Finding]:
    """Tell which process owns the state directory."""
    pid = owner_of(state_dir)
    if pid is None:
        return [ok("program", f"none runs on {state_dir}")]
    return [ok("program", f"process {pid} runs on {state_dir}; it is not disturbed")]


def owner_of(state_dir: Path, locks: Path = _LOCKS) -> int | None:
    """Return the process that holds the state directory's lock, without asking for it."""
    try:
        found = (state_dir / _LOCK).stat()
        listed = locks.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in listed:
        fields = line.split()
        if "FLOCK" in fields and device in fields:
            return int(fields[fields.index(device) - 1])
    return None


def examine_database(subject: Subject, within_s: float) -> list[Finding]:
    """Look whether the database is whole and of a version that this program reads."""
    path = subject.database
    if not path.is_file():
        return [ok(_CHECK, f"{path} is not there yet")]
    owner = owner_of(subject.state_dir)
    shown = f"{path}, in use by process {owner}" if owner else str(path)
    try:
        with closing(sqlite3.connect(_uri(path, owner), uri=True, timeout=1.0)) as opened:
            deadline = time.monotonic() + within_s
            opened.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            (version,) = opened.execute("PRAGMA user_version").fetchone()
            (found,) = opened.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return [_judge_error(shown, error)]
    if found != "ok":
        return [_damaged(path, str(found))]
    return [judge_version(shown, int(version), _expected(subject))]


def judge_version(shown: str, found: int, expected: int | None) -> Finding:
    """Tell whether this program reads a database of that schema version."""
    if expected is not None and found > expected:
        seen = f"{shown}: schema version {found}, this program reads up to {expected}"
        advice = "a newer fedfleet wrote it: install that one again, or put a backup back"
        return failed(_CHECK, seen, advice)
    if expected is not None and found < expected:
        seen = f"{shown}: whole, schema version {found}"
        return ok(_CHECK, f"{seen}; brought to {expected} at the next start")
    return ok(_CHECK, f"{shown}: whole, schema version {found}")


def _judge_error(shown: str, error: sqlite3.DatabaseError) -> Finding:
    text = str(error)
    if "interrupted" in text:
        advice = "nothing is known to be wrong: it is large; a start of the program checks it"
        return warning(_CHECK, f"{shown}: not checked to its end in time", advice)
    if "locked" in text or "busy" in text:
        return warning(_CHECK, f"{shown}: {text}", "run the doctor again in a moment")
    if type(error) is sqlite3.DatabaseError:
        return _damaged(Path(shown.partition(",")[0]), text)
    advice = "let the program's user read and write it and its folder"
    return failed(_CHECK, f"{shown}: {text}", advice)


def _damaged(path: Path, detail: str) -> Finding:
    advice = (
        f"fedfleet restore --from BACKUP --state-dir {path.parent} --replace"
        if path.stem != "device"
        else f"stop the device and move {path.parent} away: it does its jobs again"
    )
    return failed(_CHECK, f"{path} is damaged: {detail}", advice)


def _uri(path: Path, owner: int | None) -> str:
    wal = path.with_name(f"{path.name}-wal")
    is_at_rest = owner is None and not (wal.exists() and wal.stat().st_size)
    # At rest nothing is locked and no file is made beside it.
    mode = "immutable=1" if is_at_rest else "mode=ro"
    return f"{path.absolute().as_uri()}?{mode}"


def _expected(subject: Subject) -> int | None:
    try:
        version = import_module(_STORES[subject.program]).SCHEMA_VERSION
    except ImportError:
        return None  # a wheel is missing, and another check says so
    return int(version)
