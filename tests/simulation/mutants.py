"""Planted bugs, each as a change to the running code; the simulation must find every one.

They are the mistakes that systems like this one make: a receipt before its commit, a count
without a key, a timer that is not set again.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from central.adapters import jobs as central_jobs
from central.adapters.store import SqliteStore as CentralStore
from central.adapters.stored_rounds import StoredRounds
from central.core import downlink
from central.core import rounds as round_rules
from central.core import tasks as task_rules
from central.core.rounds import Phase, StartAggregation
from central.core.strategies.fedavg import FedAvg
from central.service.intake import Intake
from central.service.orchestrator import Orchestrator
from central.service.rounds import Rounds
from central.service.uploads import Uploads
from device_agent.adapters import job_run
from device_agent.adapters.store import SqliteJobStore
from device_agent.core.job import BEFORE_UPLOAD
from device_agent.service.needs import Needs
from device_agent.service.uploads import Uploads as DeviceUploads
from regional_gateway.core import roster
from regional_gateway.core.custody import Act
from regional_gateway.service import custody as gateway_custody
from regional_gateway.service import devices as gateway_devices
from schemas.messages import Receipt
from tests.simulation import program, programs
from tests.simulation.planting import Change, mutant
from transport.backlog import Backlog
from transport.loop import ServiceLoop
from transport.objects import ObjectStore
from transport.outbox import Outbox
from transport.sender import Sender


@mutant("the loop publishes before it commits: a receipt before its commit")
def _() -> tuple[Change, ...]:
    def handle(self: ServiceLoop, item: Any, now_s: float, turn: Any, ends: int) -> None:
        real(self, item, now_s, turn, ends)
        for message in turn.outgoing:
            self._publish(message, now_s)
        turn.outgoing.clear()

    real = ServiceLoop._handle
    return ((ServiceLoop, "_handle", handle),)


@mutant("central counts an update before it is written: the next one brings it to the disk")
def _() -> tuple[Change, ...]:
    def add(self: CentralStore, record: Any) -> bool:
        waiting = getattr(self, "waiting", None)
        self.waiting = record  # type: ignore[attr-defined]
        if waiting is not None:
            real(self, waiting)
        return self.contribution(record.task, record.round, record.device) is None

    real = CentralStore.add_contribution
    return ((CentralStore, "add_contribution", add),)


@mutant("updates are deduplicated by the id of their frame, not by task, round and device")
def _() -> tuple[Change, ...]:
    def add_again(self: CentralStore, record: Any) -> bool:
        key = (record.task, record.round, record.device)
        query = "DELETE FROM contributions WHERE task = ? AND round = ? AND device = ?"
        self._db.execute(query, key)
        return bool(add(self, record))

    add = CentralStore.add_contribution
    return (
        (CentralStore, "add_contribution", add_again),
        (CentralStore, "contribution", lambda self, task, number, device: None),
    )


@mutant("a device forgets its update when a gateway says that it holds it")
def _() -> tuple[Change, ...]:
    final = property(lambda receipt: receipt.retry_after_s is None)
    return ((Receipt, "is_final", final),)


@mutant("a device forgets its update once it is published")
def _() -> tuple[Change, ...]:
    def offer(self: Sender, entry: Any, now_s: float) -> Any:
        message = real(self, entry, now_s)
        if self._session_name == "main":
            self._outbox.remove(entry.xfer, entry.sha256)
        return message

    real = Sender._offer
    return ((Sender, "_offer", offer),)


@mutant("a gateway drops what it holds once it has passed it on")
def _() -> tuple[Change, ...]:
    def offer(self: Sender, entry: Any, now_s: float) -> Any:
        message = real(self, entry, now_s)
        if self._session_name == "uplink":
            self._outbox.remove(entry.xfer, entry.sha256)
        return message

    real = Sender._offer
    return ((Sender, "_offer", offer),)


@mutant("a gateway says that it holds what it has not written")
def _() -> tuple[Change, ...]:
    def judge(*args: Any) -> Any:
        found = real(*args)
        return Act.REPEAT_HELD if found is Act.TAKE else found

    real = gateway_custody.custody.judge
    return ((gateway_custody.custody, "judge", judge),)


@mutant("a device forgets to persist the job that it accepts")
def _() -> tuple[Change, ...]:
    def save(self: SqliteJobStore, record: Any) -> None:
        if record.job.state not in BEFORE_UPLOAD:
            real(self, record)

    real = SqliteJobStore.save
    return ((SqliteJobStore, "save", save),)


@mutant("a device stores that it is uploading, but not the update")
def _() -> tuple[Change, ...]:
    def add(self: DeviceUploads, *given: Any) -> Any:
        outbox = self._outbox
        self._outbox = _Nowhere()  # type: ignore[assignment]
        try:
            return real(self, *given)
        finally:
            self._outbox = outbox

    real = DeviceUploads.add
    return ((DeviceUploads, "add", add),)


class _Nowhere:
    def add(self, entry: object) -> bool:
        return True


@mutant("a gateway believes the death of an earlier life of a device")
def _() -> tuple[Change, ...]:
    def judge(known: Any, state: Any) -> Any:
        if known is not None and state.status == "offline":
            return roster.Verdict.NEWER
        return real(known, state)

    real = roster.judge
    return ((gateway_devices.roster, "judge", judge),)


@mutant("a round closes twice, with more contributors the second time")
def _() -> tuple[Change, ...]:
    def report(state: Any, device: str) -> Any:
        if device not in state.cohort:
            return state, ()
        state = replace(state, reported=state.reported | {device})
        if len(state.reported) < state.min_clients:
            return state, ()
        return state, (StartAggregation(tuple(sorted(state.reported))),)

    def commit(state: Any) -> Any:
        return replace(state, phase=Phase.COMMITTED), (round_rules.CommitRound(),)

    return ((round_rules, "_report", report), (round_rules, "_commit", commit))


@mutant("updates are added in the order of their arrival")
def _() -> tuple[Change, ...]:
    def contributions(self: StoredRounds, task: Any, record: Any, layout: Any) -> Any:
        items = {item.device: item for item in real(self, task, record, layout)}
        query = "SELECT device FROM contributions WHERE task = ? AND round = ? ORDER BY rowid"
        rows = self.database.execute(query, (task.task, record.state.number))
        return tuple(items[device] for (device,) in rows if device in items)

    real = StoredRounds._contributions
    return ((StoredRounds, "_contributions", contributions),)


@mutant("the number of examples is left out of the mean")
def _() -> tuple[Change, ...]:
    def apply(self: FedAvg, state: Any, contributions: Any) -> Any:
        return real(FedAvg(self.server_lr, weighted=False), state, contributions)

    real = FedAvg.apply
    return ((FedAvg, "apply", apply),)


@mutant("a late update counts as accepted")
def _() -> tuple[Change, ...]:
    def gate(self: Uploads, offer: Any) -> Any:
        task = self._desk.task(offer.task) if self._desk.store.task(offer.task) else None
        record = self._desk.store.round(offer.task, offer.round)
        if task is None or record is None or task.plan is None:
            return real(self, offer)
        return task, record

    real = Uploads._gate
    return ((Uploads, "_gate", gate),)


@mutant("a late update is refused, and the refusal not written")
def _() -> tuple[Change, ...]:
    return ((CentralStore, "add_refusal", lambda self, refusal: True),)


@mutant("a device that was not asked counts")
def _() -> tuple[Change, ...]:
    def report(state: Any, device: str) -> Any:
        others = frozenset({device}) if len(state.cohort) > 1 else frozenset()
        smaller = replace(state, cohort=state.cohort - others, reported=state.reported | {device})
        if len(smaller.reported) < smaller.min_clients:
            return smaller, ()
        closed = replace(smaller, phase=Phase.AGGREGATING)
        return closed, (StartAggregation(tuple(sorted(closed.reported))),)

    return ((round_rules, "_report", report),)


@mutant("the updates of an abandoned round are not settled")
def _() -> tuple[Change, ...]:
    def settle(self: CentralStore, task: str, number: int, counted: Any, reason: str) -> None:
        names = tuple(counted)
        if names:
            real(self, task, number, names, reason)

    real = CentralStore.settle
    return ((CentralStore, "settle", settle),)


@mutant("an abandoned round is opened again under its number")
def _() -> tuple[Change, ...]:
    def abandon(task: Any, reason: str, now_s: float) -> Any:
        return replace(real(task, reason, now_s), round=task.round)

    real = task_rules.abandon_round
    return ((task_rules, "abandon_round", abandon),)


@mutant("the new model is not stored with its round")
def _() -> tuple[Change, ...]:
    def save(self: CentralStore, record: Any) -> None:
        known = self.task(record.task)
        if known is not None and known.model_sha256 is not None:
            record = replace(record, model_sha256=known.model_sha256)
        real(self, record)

    real = CentralStore.save_task
    return ((CentralStore, "save_task", save),)


@mutant("a round is aggregated on the model before its own")
def _() -> tuple[Change, ...]:
    def aggregate(self: Any, job: Any) -> Any:
        first = self._base = getattr(self, "_base", job.round.base_model_sha256)
        return real(self, replace(job, round=replace(job.round, base_model_sha256=first)))

    real = central_jobs.Jobs._aggregate
    return ((central_jobs.Jobs, "_aggregate", aggregate),)


@mutant("what was due when central stopped is not taken up again")
def _() -> tuple[Change, ...]:
    return ((Rounds, "recover", lambda self, now_s, was_clean: iter(())),)


@mutant("a job begins to train before its graph is here")
def _() -> tuple[Change, ...]:
    def needed(self: Needs, record: Any) -> list[Any]:
        return real(self, record)[:1]

    real = Needs.of
    return ((Needs, "of", needed),)


@mutant("a batch that met a full disk is dropped")
def _() -> tuple[Change, ...]:
    return ((Backlog, "keep", lambda self, batch: None),)


@mutant("an offer without an answer is not repeated")
def _() -> tuple[Change, ...]:
    def attempted(self: Outbox, xfer: str, next_try_s: float) -> None:
        real(self, xfer, 4.0e9)

    real = Outbox.attempted
    return ((Outbox, "attempted", attempted), (Outbox, "wake", lambda self, *times: None))


@mutant("training begins with another seed each time")
def _() -> tuple[Change, ...]:
    rng = np.random.default_rng(1)
    return ((job_run, "round_seed", lambda *parts: int(rng.integers(1 << 50))),)


@mutant("a model is not synced before its round is committed")
def _() -> tuple[Change, ...]:
    def adopt(self: ObjectStore, path: Any, sha256: str, *, durable: bool) -> Any:
        return real(self, path, sha256, durable=False)

    real = ObjectStore.adopt
    return ((ObjectStore, "adopt", adopt),)


@mutant("a repeated submission begins its task again")
def _() -> tuple[Change, ...]:
    def submit(self: Intake, payload: bytes, now_s: float) -> Any:
        store = self._desk.store
        known = store.task

        class Forgetful:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            def task(self, name: str) -> None:
                return None

        self._desk.store = Forgetful()  # type: ignore[assignment]
        try:
            yield from real(self, payload, now_s)
        finally:
            self._desk.store = store
        assert known

    real = Intake.submit
    return ((Intake, "submit", submit),)


@mutant("the boot is the clock alone")
def _() -> tuple[Change, ...]:
    def next_boot(connection: Any, now_s: float) -> int:
        connection.execute("INSERT OR REPLACE INTO boot (one, boot) VALUES (1, ?)", (int(now_s),))
        return int(now_s)

    return ((program, "next_boot", next_boot), (programs.device_app, "next_boot", next_boot))


@mutant("a cancelled task leaves its round open")
def _() -> tuple[Change, ...]:
    def cancel(self: Rounds, task: Any, now_s: float) -> Any:
        cancelled = replace(task, progress=task_rules.cancel(task.progress))
        yield from self._openings.end_if_final(cancelled, now_s)

    return ((Rounds, "cancel", cancel),)


@mutant("contributions are purged while they are needed")
def _() -> tuple[Change, ...]:
    def init(self: Orchestrator, desk: Any, worker: Any, **settings: Any) -> None:
        real(self, desk, worker, **settings)
        self._desk.store.purge = lambda before_s: purge(self._desk.store, before_s)  # type: ignore[method-assign]

    def purge(store: Any, before_s: float) -> list[str]:
        store._db.execute("DELETE FROM contributions WHERE settled IS NOT NULL")
        return []

    real = Orchestrator.__init__
    return ((Orchestrator, "__init__", init),)


@mutant("what a compressed downlink leaves out is lost")
def _() -> tuple[Change, ...]:
    def compress(*given: Any) -> Any:
        return replace(real(*given), residual=None)

    real = downlink.compress
    return ((downlink, "compress", compress),)
