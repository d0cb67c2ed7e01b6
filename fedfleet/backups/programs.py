"""The programs whose state can be backed up, and what belongs to it."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from central.adapters import restores
from central.adapters import store as central_store
from fedfleet.errors import FleetError
from regional_gateway.adapters import backups
from regional_gateway.adapters import store as gateway_store


class BackupError(FleetError):
    """A backup was not taken or not restored; nothing was changed unless the text says so."""


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore, as a program's own part of it needs to know it.

    Attributes:
        state_dir: Where the state will be.
        backup_s: When the backup was taken, unix seconds.
        now_s: Now, unix seconds.
        replaced: The database that it takes the place of; perhaps damaged, or not there.
    """

    state_dir: Path
    backup_s: float
    now_s: float
    replaced: Path


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of program.

    Attributes:
        name: As a person knows it.
        database: Its file in the state directory.
        objects: Where its large objects lie, below the state directory.
        named_objects: The query for the digests that a backup must have.
        schema: How an empty database is made.
        version: The schema version of this program.
        migrations: What brings an older database up to date.
        adapt: Makes a restored database fit to be started with.
    """

    name: str
    database: str
    objects: Path
    named_objects: str
    schema: str
    version: int
    adapt: Callable[[sqlite3.Connection, Restore], None]
    migrations: Mapping[int, str] = field(default_factory=dict)


def _mark_central(connection: sqlite3.Connection, restore: Restore) -> None:
    above = _epoch_in(restore.replaced)
    restores.mark_restored(connection, restore.backup_s, restore.now_s, above_epoch=above)


def _epoch_in(database: Path) -> int:
    """Return the epoch of a state that is being replaced; 0 when it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return restores.newest_epoch(connection)
    except sqlite3.Error:
        return 0


def _move_custody(connection: sqlite3.Connection, restore: Restore) -> None:
    backups.move_custody(connection, restore.state_dir / GATEWAY.objects)


CENTRAL = Kind(
    name="central",
    database="central.db",
    objects=Path("objects"),
    named_objects=restores.NAMED_OBJECTS,
    schema=central_store.SCHEMA,
    version=central_store.SCHEMA_VERSION,
    migrations=central_store.MIGRATIONS,
    adapt=_mark_central,
)
GATEWAY = Kind(
    name="gateway",
    database="gateway.db",
    objects=Path("custody/objects"),
    named_objects=backups.NAMED_OBJECTS,
    schema=gateway_store.SCHEMA,
    version=gateway_store.SCHEMA_VERSION,
    migrations=gateway_store.MIGRATIONS,
    adapt=_move_custody,
)
KINDS = {kind.name: kind for kind in (CENTRAL, GATEWAY)}


def kind_of(state_dir: Path) -> Kind:
    """Return whose state a directory holds.

    Raises:
        BackupError: Neither central's nor a gateway's.
    """
    for kind in KINDS.values():
        if (state_dir / kind.database).is_file():
            return kind
    if (state_dir / "device.db").is_file():
        message = (
            f"state_dir: {state_dir} is a device's, which needs no backup: "
            "with an empty one it does its jobs again"
        )
        raise BackupError(message)
    names = " nor ".join(kind.database for kind in KINDS.values())
    message = f"state_dir: {state_dir} has neither {names}"
    raise BackupError(message)
