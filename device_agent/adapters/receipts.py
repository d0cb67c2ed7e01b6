"""What a device knows of its updates' ends, read for an audit while the device may be running."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from device_agent.adapters.store import DATABASE, SCHEMA_VERSION


class ReceiptsError(Exception):
    """There are no such tables, or they are of another version."""


@dataclass(frozen=True, slots=True)
class DeviceReceipt:
    """One update of a device.

    Attributes:
        task: Its task.
        round: Its round.
        xfer: Its transfer id.
        receipt: Status of its final receipt; None while it is on its way.
        settled: What central said of it once its round had ended.
    """

    task: str
    round: int
    xfer: str
    receipt: str | None
    settled: str | None


def read_receipts(state_dir: Path) -> list[DeviceReceipt]:
    """Return every update that this device has stored for upload, by task and round.

    Raises:
        ReceiptsError: The directory is not a device's, or of another version.
    """
    path = state_dir / DATABASE
    if not path.is_file():
        message = f"device_state_dir: {state_dir} is not a device's, it has no {path.name}"
        raise ReceiptsError(message)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            message = (
                f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                "a start of the device brings it up to date"
            )
            raise ReceiptsError(message)
        rows = connection.execute(
            "SELECT task, round, xfer, receipt, settled FROM jobs WHERE xfer IS NOT NULL "
            "ORDER BY task, round"
        )
        return [DeviceReceipt(*row) for row in rows]


def count_unreceipted(state_dir: Path) -> int:
    """Return how many updates of a device still await their final receipt; 0: no device yet."""
    path = state_dir / DATABASE
    if not path.is_file():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)
