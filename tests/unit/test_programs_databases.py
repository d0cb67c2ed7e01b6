"""The connection with which each program writes: WAL, and every commit waits for the disk."""

from contextlib import closing

import pytest

from central.adapters import store as central
from device_agent.adapters.store import open_store
from regional_gateway.adapters import store as gateway
from transport.database import open_database


def open_central(path):
    return open_database(path, central.SCHEMA, central.SCHEMA_VERSION, central.MIGRATIONS)


def open_gateway(path):
    return open_database(path, gateway.SCHEMA, gateway.SCHEMA_VERSION)


@pytest.mark.parametrize("how", [open_central, open_gateway, open_store])
def test_each_program_writes_with_wal_and_full_synchronous(tmp_path, how):
    for _ in range(2):  # a new database, and one that is there
        with closing(how(tmp_path / "state.db")) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
