"""Opens rounds: finds the devices that fit, prepares the first model, chooses the cohort."""

from collections.abc import Iterator
from dataclasses import replace

from central.core import tasks
from central.core.rounds import RoundState
from central.core.selection import Fit, choose, find_fit
from central.service.assignments import Assignments
from central.service.desk import Desk
from central.service.ports import ExportModel, PrepareModel
from central.service.records import RoundRecord, TaskRecord
from central.service.registry import Registry
from transport.events import Outgoing
from transport.failpoints import failpoint


class Openings:
    """Decides which task may open a round now, and opens it."""

    def __init__(self, desk: Desk, registry: Registry, assignments: Assignments) -> None:
        self._desk = desk
        self._registry = registry
        self._assignments = assignments

    def schedule(self, now_s: float) -> Iterator[Outgoing]:
        """Open a round for every task that wants one; who has waited longest comes first."""
        waiting = [task for task in self._desk.store.live_tasks() if task.progress.wants_round]
        for task in sorted(waiting, key=lambda task: task.progress.waiting_since_s):
            yield from self._try_to_open(task, now_s)

    def fit(self, task: TaskRecord, besides: frozenset[str] = frozenset()) -> Fit:
        """Return the devices that fit a task and are free, besides some."""
        data = task.plan.data.key if task.plan else None
        everyone = self._registry.candidates(task.task, self._busy(task.task))
        return find_fit(task.submission, (c for c in everyone if c.device not in besides), data)

    def end_if_final(self, task: TaskRecord, now_s: float) -> Iterator[Outgoing]:
        """Save a task; once it is final, tell the fleet and have its model written out."""
        if task.progress.is_final:
            task = replace(task, ended_s=now_s)
            if task.progress.committed:
                self._desk.jobs.append(ExportModel(task))
            self._desk.meter.task_ended(task.progress.state)
            yield from self._desk.cancel(task.task)
            failpoint("central.task.ended")
        self._desk.save_task(task)

    def _try_to_open(self, task: TaskRecord, now_s: float) -> Iterator[Outgoing]:
        fit = self.fit(task)
        if len(fit.devices) < task.min_clients or fit.data is None:
            progress = tasks.too_few(task.progress, fit.describe(task.min_clients), now_s)
            if progress != task.progress:
                yield from self.end_if_final(replace(task, progress=progress), now_s)
        elif task.plan is None:
            self._desk.save_task(replace(task, progress=tasks.prepare(task.progress)))
            self._desk.jobs.append(PrepareModel(task.task, task.submission, fit.data))
            failpoint("central.preparation.due")
        else:
            yield from self._open(task, fit, now_s)

    def _open(self, task: TaskRecord, fit: Fit, now_s: float) -> Iterator[Outgoing]:
        if task.plan is None or task.model_sha256 is None:
            message = f"task {task.task} has no model yet"
            raise RuntimeError(message)
        fault = self._assignments.fault(task)
        if fault is not None:
            failed = replace(task, progress=tasks.fail(task.progress, fault))
            yield from self.end_if_final(failed, now_s)
            return
        number, asked = task.progress.round, task.submission
        cohort = frozenset(choose(asked, fit, task.min_clients, number))
        state = RoundState(
            number=number,
            min_clients=task.min_clients,
            cohort=cohort,
            deadline_s=now_s + asked.deadline_s,
            deadline_length_s=asked.deadline_s,
            on_shortfall=asked.on_shortfall,
            budget_bits=asked.uplink_budget_bits,
            bid_share=asked.budget_bid_share,
        )
        record = RoundRecord(task.task, state, task.model_sha256, task.plan.model_bytes, now_s)
        announced = self._assignments.announced_bytes(task, record) * len(cohort)
        downlink = task.totals.downlink_bytes + announced
        totals = task.totals.model_copy(update={"downlink_bytes": downlink})
        task = replace(task, progress=tasks.open_round(task.progress), totals=totals)
        self._desk.save_task(task)
        self._desk.store.save_round(record)
        failpoint("central.round.opened")
        yield from self._assignments.send(task, record, now_s)

    def _busy(self, besides_task: str) -> frozenset[str]:
        busy: set[str] = set()
        for task in self._desk.store.live_tasks():
            record = self._desk.reporting_round(task)
            if task.task != besides_task and record is not None:
                busy |= record.state.hopeful - record.state.reported
        return frozenset(busy)
