"""What the programs wrote down: central's and the devices' tables, read while they run."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from central.adapters.audit import TaskAudit, open_books
from central.adapters.store import SqliteStore
from central.adapters.stored_rounds import read_model
from central.core.strategies.base import Strategy
from central.service.records import ContributionRecord, RoundRecord, TaskRecord
from schemas.envelope import decode_frame
from schemas.messages import Receipt, UpdateManifest
from schemas.topics import Kind, TopicError, parse
from tests.support.fleet_watch import Tap
from transport.objects import object_path
from updates.layout import Layout


class Books:
    """Central's database and objects, of one task."""

    def __init__(
        self,
        state_dir: Path,
        task: str,
        strategies: Mapping[str, Callable[..., Strategy]] | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._strategies = strategies or {}
        self._path = state_dir / "central.db"
        self._task = task

    @property
    def task(self) -> TaskRecord:
        with self._store() as store:
            found = store.task(self._task)
        assert found is not None
        return found

    def ended(self) -> list[RoundRecord]:
        with self._store() as store:
            return store.ended_rounds(self._task, 1000)

    @property
    def committed(self) -> list[RoundRecord]:
        return [record for record in self.ended() if record.model_sha256 is not None]

    @property
    def layout(self) -> Layout:
        """The layout of the task's newest model."""
        return read_model(object_path(self._state_dir, self.task.model_sha256 or ""))[0]

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

    def audit(self) -> TaskAudit:
        """What ``fedfleet audit`` finds."""
        with open_books(self._state_dir, self._strategies) as books:
            return books.audit(self._task)

    def check(self) -> None:
        """Every accepted update is in one committed aggregate, or in none with a reason."""
        found = self.audit()
        assert found.accepted
        assert not found.findings, found.findings

    def recompute(self) -> list[str]:
        """Aggregate again from the first model on; return the digest of each committed model."""
        return list(self.audit().recomputed.values())

    def final_model(self) -> np.ndarray:
        digest = self.task.model_sha256
        assert digest is not None
        return np.array(read_model(object_path(self._state_dir, digest))[1])

    def first_model(self) -> np.ndarray:
        return np.array(
            read_model(object_path(self._state_dir, self.committed[0].base_model_sha256))[1]
        )

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


#: What a tap must listen to, and keep whole, for ``promised``.
PROMISES = ("fl/v1/+/+/dn/rcpt/+", "fl/v1/+/+/up/m/+")


def promised(tap: Tap, task: str) -> list[tuple[Receipt, int]]:
    """Return the accepted receipts of a task, to gateways and to devices, with their rounds."""
    tap.drain()
    rounds: dict[str, int] = {}
    accepted = []
    for seen in tap.seen:
        if not seen.topic.startswith("fl/v1/"):
            continue
        frame = decode_frame(seen.payload or b"")
        if parse(seen.topic).kind is Kind.MANIFEST:
            body = frame.body(UpdateManifest)
            if body.task == task:
                rounds[body.xfer] = body.round
        elif frame.body(Receipt).status == "accepted":
            accepted.append(frame.body(Receipt))
    return [(receipt, rounds[receipt.xfer]) for receipt in accepted if receipt.xfer in rounds]
