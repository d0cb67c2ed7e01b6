"""Central's final receipts as a gateway keeps them, read for an audit while it may be running."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from regional_gateway.adapters.store import DATABASE, SCHEMA_VERSION
from schemas.envelope import decode_frame
from schemas.messages import Receipt


class ReceiptsError(Exception):
    """There are no such tables, or they are of another version."""


@dataclass(frozen=True, slots=True)
class GatewayReceipt:
    """One final receipt that this gateway has passed down."""

    device: str
    receipt: Receipt


def read_receipts(state_dir: Path) -> list[GatewayReceipt]:
    """Return every final receipt of the last seven days that this gateway has from central.

    Raises:
        ReceiptsError: The directory is not a gateway's, or of another version.
    """
    path = state_dir / DATABASE
    if not path.is_file():
        message = f"gateway_state_dir: {state_dir} is not a gateway's, it has no {path.name}"
        raise ReceiptsError(message)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            message = f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}"
            raise ReceiptsError(message)
        rows = connection.execute("SELECT device, frame FROM receipts ORDER BY xfer").fetchall()
    return [GatewayReceipt(device, decode_frame(frame).body(Receipt)) for device, frame in rows]
