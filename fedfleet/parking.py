"""Parked messages out of a program's state directory, whether the program runs or not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from fedfleet.errors import FleetError
from transport.parking import ParkedRow, Parking

#: The databases of the three programs; a state directory has one of them.
DATABASES = ("central.db", "gateway.db", "device.db")
_BUSY_TIMEOUT_S = 10.0


class ParkingError(FleetError):
    """The directory is no program's, its database cannot be read, or nothing has that number."""


def parked_rows(state_dir: Path) -> list[ParkedRow]:
    """Return all parked messages, the newest first.

    Raises:
        ParkingError: The directory is no program's, or its database cannot be read.
    """
    with _parking(state_dir) as parking:
        return parking.newest(-1)


def drop(state_dir: Path, number: int | None) -> int:
    """Remove one parked message, or all for None.

    Returns:
        How many were removed.

    Raises:
        ParkingError: As ``parked_rows``, or there is no message of that number.
    """
    with _parking(state_dir) as parking:
        dropped = parking.drop(number)
    if number is not None and not dropped:
        message = f"--drop: {state_dir} has no parked message {number}"
        raise ParkingError(message)
    return dropped


def as_object(row: ParkedRow) -> dict[str, object]:
    """Return a row for JSON."""
    return asdict(row)


@contextmanager
def _parking(state_dir: Path) -> Iterator[Parking]:
    found = [state_dir / name for name in DATABASES if (state_dir / name).is_file()]
    if not found:
        message = f"--state-dir: {state_dir} has none of {', '.join(DATABASES)}"
        raise ParkingError(message)
    try:
        with closing(
            sqlite3.connect(
                f"file:{found[0]}?mode=rw",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
            )
        ) as database:
            yield Parking(database)
    except sqlite3.Error as error:
        message = f"{found[0]}: {error}"
        raise ParkingError(message) from error
