"""Checks the promise on central's own tables: every accepted update counts once, or not at all.

It only reads, in one snapshot, so central may be running. Nothing of what central has derived is
believed: counts are counted again, digests are hashed again, and each committed model is
aggregated again from the stored contributions, with the strategy and the codec of the task.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from central.adapters.audited_budgets import budget_findings
from central.adapters.store import DATABASE, SCHEMA_VERSION, SqliteStore
from central.adapters.stored_rounds import StoredRounds, model_parts
from central.core.rounds import Phase
from central.core.strategies.base import Strategy, StrategyError
from central.core.tasks import ROUNDS_AN_EPOCH, LostRounds
from central.service.records import ContributionRecord, Refusal, RoundRecord, TaskRecord
from schemas.errors import WireError
from transport.database import DatabaseCorruptError
from transport.objects import object_path

_ALL = 1 << 31
#: What aggregating again may meet in books that are wrong.
_UNREADABLE = (StrategyError, WireError, DatabaseCorruptError, OSError, ValueError, KeyError)


class AuditError(Exception):
    """The books cannot be read: there are none, or they are of another version."""


@dataclass(slots=True)
class TaskAudit:
    """What the books say of one task, and what is wrong with them.

    Attributes:
        task: Its id.
        state: As central has it.
        committed: Rounds with a model.
        abandoned: Rounds without one.
        accepted: Updates that have a receipt ``accepted``.
        counted: Those in a committed model.
        open: Those of a round that has not ended.
        discarded: Those in no model, by reason.
        refused: Transfers with a final no, by status and code.
        update_bytes: Sum of the accepted updates' sizes.
        recomputed: Digest of each committed model, aggregated again, by round.
        lost: Accepted updates of an ended round that neither count nor have a reason.
        double: Times that an update counts beyond the first.
        findings: One sentence for each thing that is wrong; none when the promise holds.
    """

    task: str
    state: str
    committed: int = 0
    abandoned: int = 0
    accepted: int = 0
    counted: int = 0
    open: int = 0
    discarded: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    update_bytes: int = 0
    recomputed: dict[int, str] = field(default_factory=dict)
    lost: int = 0
    double: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a restore took from central: whoever was receipted for it is owed no more than this.

    Attributes:
        restores: How often central was restored.
        given_up: Task and round of the rounds that ended without a model.
        ranges: Rounds that central may have run and knows nothing of, by task.
    """

    restores: int
    given_up: frozenset[tuple[str, int]]
    ranges: Mapping[str, tuple[LostRounds, ...]]

    def holds(self, task: str, number: int) -> bool:
        """Tell whether a round is declared forgotten, or was given up with a restore."""
        lost = any(one.first <= number <= one.last for one in self.ranges.get(task, ()))
        return lost or (task, number) in self.given_up


class Books:
    """Central's books for one look at them; see ``open_books``."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        state_dir: Path,
        strategies: Mapping[str, Callable[..., Strategy]],
    ) -> None:
        self._db = connection
        self._store = SqliteStore(connection)
        self._object_path = partial(object_path, state_dir)
        self._rounds = StoredRounds(connection, self._object_path, strategies)

    def tasks(self) -> list[str]:
        """Return the ids of all tasks, oldest first."""
        records = [*self._store.ended_tasks(), *self._store.live_tasks()]
        return [record.task for record in sorted(records, key=lambda one: one.created_s)]

    def rounds(self, task: TaskRecord) -> list[RoundRecord]:
        """Return all rounds of a task, also the open one."""
        ended = self._store.ended_rounds(task.task, _ALL)
        current = self._store.round(task.task, task.progress.round)
        is_open = current is not None and not current.state.has_ended
        return [*ended, current] if current is not None and is_open else ended

    def contributions(self) -> dict[str, ContributionRecord]:
        """Return every accepted update by its transfer id, without payloads."""
        pairs = self._db.execute("SELECT DISTINCT task, round FROM contributions")
        return {
            row.xfer: row
            for task, number in pairs.fetchall()
            for row in self._store.contributions(task, number)
        }

    def forgotten(self) -> Forgotten:
        """Return what central declares to have forgotten when it was restored from a backup."""
        (restores,) = self._db.execute("SELECT count(*) FROM restores").fetchone()
        if not restores:
            return Forgotten(0, frozenset(), {})
        tasks = [record for name in self.tasks() if (record := self._store.task(name))]
        given_up = {
            (task.task, record.state.number)
            for task in tasks
            for record in self.rounds(task)
            if record.state.phase is Phase.ABANDONED
        }
        ranges = {task.task: task.progress.lost for task in tasks}
        return Forgotten(int(restores), frozenset(given_up), ranges)

    def refusals(self, task: str) -> list[Refusal]:
        """Return the final noes of a task."""
        query = (
            "SELECT xfer, task, round, device, status, code, detail, at_s FROM refusals "
            "WHERE task = ?"
        )
        return [Refusal(*row) for row in self._db.execute(query, (task,))]

    def audit(self, name: str) -> TaskAudit:
        """Check one task.

        Raises:
            AuditError: There is no such task.
        """
        task = self._store.task(name)
        if task is None:
            message = f"task: {name!r} is not known here; there are: {', '.join(self.tasks())}"
            raise AuditError(message)
        rounds = self.rounds(task)
        rows = [
            row
            for record in rounds
            for row in self._store.contributions(name, record.state.number)
        ]
        found = TaskAudit(name, task.progress.state, accepted=len(rows))
        _count(found, rounds, rows, self.refusals(name))
        _check_rows(found, rounds, rows)
        _check_references(found, rows)
        found.findings += budget_findings(rounds, rows)
        _check_totals(found, task)
        _check_chain(found, task, rounds)
        self._check_payloads(found, rows)
        self._recompute(found, task, rounds)
        return found

    def _check_payloads(self, found: TaskAudit, rows: list[ContributionRecord]) -> None:
        for row in rows:
            try:
                data = self._rounds.payload(row.task, row.round, row.device, row.sha256)
            except OSError as error:
                found.findings.append(f"{_name(row)}: its bytes cannot be read: {error}")
                continue
            except DatabaseCorruptError:
                found.findings.append(f"{_name(row)}: its bytes are not those of its digest")
                continue
            if hashlib.sha256(data).hexdigest() != row.sha256:
                found.findings.append(f"{_name(row)}: its bytes are not those of its digest")

    def _recompute(self, found: TaskAudit, task: TaskRecord, rounds: list[RoundRecord]) -> None:
        state: bytes | None = None
        committed = [one for one in rounds if one.state.phase is Phase.COMMITTED]
        for before, record in enumerate(committed):
            number = record.state.number
            try:
                done = self._rounds.aggregate(task, record, state, before)
            except _UNREADABLE as error:
                found.findings.append(f"round {number}: cannot be aggregated again: {error!r}")
                return
            state = done.state
            found.recomputed[number] = model_parts(done.layout, done.model)[2]
            if found.recomputed[number] != record.model_sha256:
                found.findings.append(
                    f"round {number}: aggregated again it gives {found.recomputed[number]}, "
                    f"stored is {record.model_sha256}"
                )
            delta = None if done.delta is None else hashlib.sha256(done.delta).hexdigest()
            if delta != record.delta_sha256:
                found.findings.append(
                    f"round {number}: its delta is {delta}, stored is {record.delta_sha256}"
                )


@contextmanager
def open_books(
    state_dir: Path, strategies: Mapping[str, Callable[..., Strategy]]
) -> Iterator[Books]:
    """Open central's books for reading, in one snapshot.

    Args:
        state_dir: Central's state directory; central may be running.
        strategies: A user's own strategies, by name.

    Raises:
        AuditError: There is no database, or it is of another version.
    """
    path = state_dir / DATABASE
    if not path.is_file():
        message = f"state_dir: {state_dir} is not central's, it has no {path.name}"
        raise AuditError(message)
    uri = f"file:{path}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            message = f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}"
            raise AuditError(message)
        yield Books(connection, state_dir, strategies)


def _count(
    found: TaskAudit,
    rounds: list[RoundRecord],
    rows: list[ContributionRecord],
    refusals: list[Refusal],
) -> None:
    phases = Counter(record.state.phase for record in rounds)
    found.committed, found.abandoned = phases[Phase.COMMITTED], phases[Phase.ABANDONED]
    found.counted = sum(row.settled == "counted" for row in rows)
    found.discarded = dict(Counter(str(one.reason) for one in rows if one.settled == "discarded"))
    found.refused = dict(Counter(_refused_as(refusal) for refusal in refusals))
    found.update_bytes = sum(row.size for row in rows)
    numbers = {record.state.number for record in rounds if not record.state.has_ended}
    found.open = sum(row.round in numbers for row in rows)
    both = {row.xfer for row in rows} & {refusal.xfer for refusal in refusals}
    found.findings += [f"transfer {xfer} is accepted and refused" for xfer in sorted(both)]


def _check_rows(
    found: TaskAudit, rounds: list[RoundRecord], rows: list[ContributionRecord]
) -> None:
    """Compare what is marked counted with what the committed rounds list, both ways."""
    names = Counter((row.round, row.device) for row in rows)
    contributors = Counter(
        (record.state.number, device)
        for record in rounds
        if record.state.phase is Phase.COMMITTED
        for device in record.contributors or ()
    )
    twice = [key for seen in (names, contributors) for key, times in seen.items() if times > 1]
    found.double = sum((names - Counter(set(names))).values())
    found.double += sum((contributors - Counter(set(contributors))).values())
    found.findings += [f"round {key[0]}, {key[1]}: is there more than once" for key in twice]
    counted = {(row.round, row.device) for row in rows if row.settled == "counted"}
    for number, device in sorted(counted - set(contributors)):
        found.lost += 1
        found.findings.append(f"round {number}, {device}: marked counted, its model lacks it")
    for number, device in sorted(set(contributors) - counted):
        found.findings.append(f"round {number}, {device}: in the model, not marked counted")
    ended = {record.state.number for record in rounds if record.state.has_ended}
    for row in rows:
        if row.round in ended and row.settled != "counted" and not row.reason:
            found.lost += 1
            found.findings.append(f"{_name(row)}: neither counted nor discarded with a reason")


def _check_references(found: TaskAudit, rows: list[ContributionRecord]) -> None:
    """Check that each update builds on its device's last counted round, or on none."""
    last: dict[str, int] = {}
    for row in rows:
        counted = last.get(row.device, 0)
        if row.reference not in (0, counted):
            found.findings.append(
                f"{_name(row)}: builds on round {row.reference}, counted last was {counted}"
            )
        if row.settled == "counted":
            last[row.device] = row.round


def _check_totals(found: TaskAudit, task: TaskRecord) -> None:
    is_late = {name: name.split(" ")[0] == "late" for name in found.refused}
    is_late["late E_BUDGET"] = False  # over the budget, which is not too late
    late = sum(n for name, n in found.refused.items() if is_late[name])
    for what, told, counted in (
        ("updates accepted", task.totals.updates_accepted, found.accepted),
        ("updates late", task.totals.late, late),
        ("bytes of updates", task.totals.uplink_bytes, found.update_bytes),
        ("rounds committed", task.progress.committed, found.committed),
        ("rounds abandoned", task.progress.abandoned, found.abandoned),
    ):
        if told != counted:
            found.findings.append(f"{what}: central says {told}, its tables give {counted}")


def _check_chain(found: TaskAudit, task: TaskRecord, rounds: list[RoundRecord]) -> None:
    """Check that round follows round, and that each begins with the last committed model."""
    numbers = [record.state.number for record in rounds]
    expected = _numbers(task.progress.lost, len(rounds), numbers[0] if numbers else 1)
    if numbers != expected:
        found.findings.append(f"rounds: numbered {numbers}, must be {expected}")
    model = rounds[0].base_model_sha256 if rounds else task.model_sha256
    for record in rounds:
        if record.base_model_sha256 != model:
            number, base = record.state.number, record.base_model_sha256
            found.findings.append(f"round {number}: began with {base}, the model was {model}")
        model = record.model_sha256 or model
    if model != task.model_sha256:
        found.findings.append(f"model: the task has {task.model_sha256}, its rounds give {model}")


def _numbers(lost: tuple[LostRounds, ...], count: int, first: int = 1) -> list[int]:
    """Return the numbers of so many rounds: one after another, but for those that were lost.

    The first is 1, or the first of a later million: of a task that came after a restore.
    """
    numbers: list[int] = []
    number = first if first % ROUNDS_AN_EPOCH == 1 else 1
    while len(numbers) < count:
        after = next((one.last + 1 for one in lost if one.first <= number <= one.last), number)
        number = after
        numbers.append(number)
        number += 1
    return numbers


def _refused_as(refusal: Refusal) -> str:
    return f"{refusal.status} {refusal.code}" if refusal.code else refusal.status


def _name(row: ContributionRecord) -> str:
    return f"round {row.round}, {row.device}"
