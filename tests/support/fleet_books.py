"""What the programs wrote down: central's and the devices' tables, read while they run."""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from central.adapters.jobs import read_model
from central.adapters.store import SqliteStore
from central.core.strategies.base import Contribution, Contributions
from central.core.strategies.fedavg import FedAvg
from central.service.records import ContributionRecord, RoundRecord, TaskRecord
from schemas.envelope import decode_frame
from schemas.messages import Receipt
from schemas.topics import Kind, TopicError, parse
from tests.support.fleet_watch import Tap
from transport.objects import ObjectStore
from updates.codecs import create
from updates.layout import Layout
from updates.model_file import encode_model


class Books:
    """Central's database and objects, of one task."""

    def __init__(self, state_dir: Path, task: str) -> None:
        self._path = state_dir / "central.db"
        self._objects = ObjectStore(state_dir)
        self._task = task

    @property
    def task(self) -> TaskRecord:
        with self._store() as store:
            found = store.task(self._task)
        assert found is not None
        return found

    @property
    def committed(self) -> list[RoundRecord]:
        with self._store() as store:
            rounds = store.ended_rounds(self._task, 1000)
        return [record for record in rounds if record.model_sha256 is not None]

    @property
    def layout(self) -> Layout:
        """The layout of the task's newest model."""
        return read_model(self._objects.path(self.task.model_sha256 or ""))[0]

    def round(self, number: int) -> RoundRecord:
        with self._store() as store:
            found = store.round(self._task, number)
        assert found is not None
        return found

    def contributions(self) -> list[ContributionRecord]:
        """Every accepted update of every round."""
        with self._store() as store:
            numbers = [record.state.number for record in store.ended_rounds(self._task, 1000)]
            return [row for number in numbers for row in store.contributions(self._task, number)]

    def check(self) -> None:
        """Every accepted update is in one committed aggregate, or in none with a reason."""
        rows = self.contributions()
        assert rows
        times = Counter((row.round, row.device) for row in rows)
        assert set(times.values()) == {1}, times
        counted = {(row.round, row.device) for row in rows if row.settled == "counted"}
        contributors = {
            (record.state.number, device)
            for record in self.committed
            for device in record.contributors or ()
        }
        assert counted == contributors
        assert all(row.settled == "counted" or row.reason for row in rows)
        assert self.task.totals.updates_accepted == len(rows)
        assert self.task.progress.committed == len(self.committed)

    def recompute(self) -> list[str]:
        """Aggregate again from the first model on; return the digest of each committed model."""
        rounds, asked = self.committed, self.task.submission
        codec = create(asked.codec, asked.codec_params)
        layout, model = read_model(self._objects.path(rounds[0].base_model_sha256))
        digests = []
        for record in rounds:
            payloads = self._payloads(record.state.number)
            items = tuple(
                Contribution(device, examples, layout, codec, partial(bytes, payload))
                for device, (payload, examples) in sorted(payloads.items())
                if device in (record.contributors or ())
            )
            _, model = FedAvg().apply({}, Contributions(model, items))
            digests.append(hashlib.sha256(encode_model(layout, model)).hexdigest())
        return digests

    def final_model(self) -> np.ndarray:
        digest = self.task.model_sha256
        assert digest is not None
        return np.array(read_model(self._objects.path(digest))[1])

    def first_model(self) -> np.ndarray:
        return np.array(read_model(self._objects.path(self.committed[0].base_model_sha256))[1])

    def knows(self, receipt: Receipt) -> bool:
        """Tell whether an ``accepted`` receipt stands in the table."""
        query = "SELECT count(*) FROM contributions WHERE xfer = ? AND sha256 = ?"
        with self._connection() as database:
            (count,) = database.execute(query, (receipt.xfer, receipt.sha256)).fetchone()
        return count == 1

    def refused(self, device: str) -> set[tuple[int, str]]:
        """Return (round, device) of every update of a device that was refused for good."""
        query = "SELECT round, device FROM refusals WHERE task = ? AND device = ?"
        with self._connection() as database:
            return set(database.execute(query, (self._task, device)).fetchall())

    def _payloads(self, number: int) -> dict[str, tuple[bytes, int]]:
        query = (
            "SELECT device, sha256, payload, num_examples "
            "FROM contributions LEFT JOIN payloads USING (task, round, device) "
            "WHERE task = ? AND round = ?"
        )
        with self._connection() as database:
            rows = database.execute(query, (self._task, number)).fetchall()
        return {
            device: (payload if payload is not None else self._objects.read(sha256), examples)
            for device, sha256, payload, examples in rows
        }

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as database:
            yield database

    @contextmanager
    def _store(self) -> Iterator[SqliteStore]:
        with self._connection() as database:
            yield SqliteStore(database)


def device_jobs(state_dir: Path, task: str) -> dict[int, str]:
    """Return the state of each of a device's jobs, by round."""
    with closing(sqlite3.connect(f"file:{state_dir / 'device.db'}?mode=ro", uri=True)) as database:
        query = "SELECT round, state FROM jobs WHERE task = ?"
        return dict(database.execute(query, (task,)).fetchall())


def receipts(tap: Tap, since: int = 0) -> list[Receipt]:
    """Return the receipts that passed on their way to devices, after the first ``since`` messages."""
    found = []
    for seen in tap.seen[since:]:
        try:
            topic = parse(seen.topic)
        except TopicError:
            continue
        if topic.kind is Kind.RECEIPT and topic.address and not topic.address.is_gateway:
            found.append(decode_frame(seen.payload or b"").body(Receipt))
    return found
