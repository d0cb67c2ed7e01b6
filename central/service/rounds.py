"""Rounds from opening to end: the core decides, this saves, sends and starts the heavy work."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from central.core import downlink, lazy_sum, tasks
from central.core import rounds as core
from central.core.round_events import Cause, cause_of
from central.service import memories
from central.service.assignments import Assignments
from central.service.bids import Bids
from central.service.desk import Desk
from central.service.metering import RoundEnd
from central.service.openings import Openings
from central.service.ports import (
    AggregateRound,
    EvaluateModel,
    ExportModel,
    JobFailed,
    ModelEvaluated,
    ModelPrepared,
    PrepareModel,
    RoundAggregated,
)
from central.service.records import ResolvedPlan, RoundRecord, TaskRecord
from schemas.tasks import RoundSummary
from transport.events import Outgoing
from transport.failpoints import failpoint
from updates.choice import label


class Rounds:
    """Opens rounds, feeds them events, and carries out what the core instructs."""

    def __init__(
        self, desk: Desk, openings: Openings, assignments: Assignments, bids: Bids
    ) -> None:
        self._desk = desk
        self._openings = openings
        self._assignments = assignments
        self._bids = bids

    def on_event(
        self, task: str, number: int, event: core.RoundEvent, now_s: float
    ) -> Iterator[Outgoing]:
        """Feed one event to one round; nothing happens if that round is not the open one."""
        found = self._desk.store.task(task)
        record = self._desk.open_round(found) if found else None
        if record is None or record.state.number != number:
            return
        yield from self._step(record, event, now_s)
        if record.state.is_bidding and not isinstance(
            event, core.BidsCollected | core.BidsGranted
        ):
            collected = core.BidsCollected(self._bids.bidders(task, number), now_s)
            yield from self.on_event(task, number, collected, now_s)

    def _step(
        self, record: RoundRecord, event: core.RoundEvent, now_s: float
    ) -> Iterator[Outgoing]:
        before = record.state
        state, instructions = core.transition(before, event)
        if state == before and not instructions:
            return
        record = replace(record, state=state)
        self._desk.store.save_round(record)
        failpoint("central.round.saved")
        self._desk.touch(record.task, urgent=state.reason != before.reason)
        for instruction in instructions:
            yield from self._carry_out(record, instruction, event, now_s)

    def on_all(self, event: core.RoundEvent, now_s: float) -> Iterator[Outgoing]:
        """Feed one event to every open round: a device went or came back, time passed."""
        for task in self._desk.store.live_tasks():
            yield from self.on_event(task.task, task.progress.round, event, now_s)

    def _carry_out(
        self,
        record: RoundRecord,
        instruction: core.Instruction,
        event: core.RoundEvent,
        now_s: float,
    ) -> Iterator[Outgoing]:
        match instruction:
            case core.StartAggregation(contributors):
                self._aggregate(replace(record, contributors=contributors))
            case core.SeekReplacements(count):
                yield from self._replace(record, count, now_s)
            case core.GrantBids(candidates):
                yield from self._grant(record, candidates, now_s)
            case core.AnswerBids():
                self._bids.answer_due(record.task, record.state.number)
            case core.AbandonRound(reason):
                yield from self._abandon(record, reason, cause_of(event), now_s)
            case core.CommitRound() | core.TellExtension():
                return

    def _aggregate(self, record: RoundRecord) -> None:
        self._desk.store.save_round(record)
        failpoint("central.round.frozen")
        self._assignments.ended(record.task, record.state.number)
        task = self._desk.task(record.task)
        state = self._desk.store.strategy_state(record.task)
        self._desk.jobs.append(AggregateRound(task, record, state))
        failpoint("central.aggregation.due")

    def _grant(
        self, record: RoundRecord, candidates: frozenset[str], now_s: float
    ) -> Iterator[Outgoing]:
        grants = self._bids.grants(self._desk.task(record.task), record, candidates)
        event = core.BidsGranted(grants, len(candidates))
        yield from self.on_event(record.task, record.state.number, event, now_s)
        failpoint("central.bids.granted")

    def _replace(self, record: RoundRecord, count: int, now_s: float) -> Iterator[Outgoing]:
        task = self._desk.task(record.task)
        fit = self._openings.fit(task, record.state.cohort)
        found = frozenset(fit.devices[:count])
        event = core.ReplacementsSought(found)
        yield from self.on_event(record.task, record.state.number, event, now_s)
        grown = self._desk.reporting_round(self._desk.task(record.task))
        if found and grown is not None:
            yield from self._assignments.send(task, grown, now_s)

    def _abandon(
        self, record: RoundRecord, reason: str, cause: Cause, now_s: float
    ) -> Iterator[Outgoing]:
        number = record.state.number
        self._desk.store.settle(record.task, number, (), f"round abandoned: {reason}")
        failpoint("central.round.abandoned")
        task = self._desk.task(record.task)
        self._close(task, record, cause, now_s)
        if not task.progress.is_final:
            progress = tasks.abandon_round(task.progress, reason, now_s)
            yield from self._openings.end_if_final(replace(task, progress=progress), now_s)

    # -- results of the heavy work -----------------------------------------------------------

    def on_prepared(self, event: ModelPrepared, now_s: float) -> Iterator[Outgoing]:
        """Store what the first model fixed; the task may now open its first round."""
        task = self._desk.task(event.task)
        if task.progress.step != "preparing" or task.progress.is_final:
            return
        if not self._is_stored(event):
            self._desk.jobs.append(PrepareModel(task.task, task.submission, event.data))
            return
        plan = ResolvedPlan(
            data=event.data,
            parameters=event.parameters,
            layout_sha256=event.layout_sha256,
            model_bytes=event.size,
            graph_sha256=event.graph_sha256,
            graph_bytes=event.graph_bytes,
            forward_key=event.forward_key,
        )
        progress = tasks.prepared(task.progress, now_s)
        if fault := _size_fault(task, event.parameters):
            progress = tasks.fail(progress, fault)
        prepared = replace(task, plan=plan, model_sha256=event.sha256, progress=progress)
        yield from self._openings.end_if_final(prepared, now_s)
        failpoint("central.task.prepared")

    def _is_stored(self, event: ModelPrepared) -> bool:
        """Tell whether all of it is still there: a purge may have come before a row named it."""
        named = (event.sha256, event.graph_sha256)
        return all(self._desk.objects.has(sha256) for sha256 in named if sha256 is not None)

    def on_aggregated(self, event: RoundAggregated, now_s: float) -> Iterator[Outgoing]:
        """Commit a round: model, strategy's state, contributors and progress in one go."""
        task = self._desk.task(event.task)
        record = self._desk.open_round(task)
        if record is None or record.state.number != event.round:
            return
        state, instructions = core.transition(record.state, core.ModelAggregated())
        if core.CommitRound() not in instructions:
            return
        counted = record.contributors or ()
        late = "arrived after the round had enough"
        self._desk.store.settle(event.task, event.round, counted, late)
        failpoint("central.round.settled")
        self._desk.store.save_strategy_state(event.task, event.state)
        failpoint("central.strategy.saved")
        record = replace(record, delta_sha256=event.delta_sha256, delta_bytes=event.delta_bytes)
        record = replace(record, state=state, model_sha256=event.sha256)
        self._close(task, record, None, now_s)
        progress = tasks.commit_round(task.progress)
        task = replace(task, model_sha256=event.sha256, progress=progress, lazy=event.lazy)
        self._desk.save_task(task)
        failpoint("central.round.committed")
        yield from self._evaluate(task, event.round, now_s)

    def _evaluate(self, task: TaskRecord, number: int, now_s: float) -> Iterator[Outgoing]:
        if task.plan is not None and self._desk.catalog.has_evaluation(task.plan.data):
            self._desk.jobs.append(EvaluateModel(task, number))
            return
        yield from self.on_evaluated(ModelEvaluated(task.task, number), now_s)

    def on_evaluated(self, event: ModelEvaluated, now_s: float) -> Iterator[Outgoing]:
        """Record a model's metrics and go on: next round, or the task is completed."""
        task = self._desk.task(event.task)
        if task.progress.step != "evaluating" or task.progress.round != event.round + 1:
            return
        record = self._desk.store.round(event.task, event.round)
        if record is not None and record.summary is not None and event.metrics:
            summary = record.summary.model_copy(update={"metrics": event.metrics})
            self._desk.store.save_round(replace(record, summary=summary))
        progress = tasks.evaluate(task.progress, event.metrics, now_s)
        if event.problem and not progress.reason:
            progress = replace(progress, reason=f"round {event.round}: {event.problem}")
        metrics = event.metrics or task.metrics
        task = replace(task, progress=progress, metrics=metrics)
        failpoint("central.round.evaluated")
        yield from self._openings.end_if_final(task, now_s)

    def on_failure(self, event: JobFailed, now_s: float) -> Iterator[Outgoing]:
        """End what a job was for: a round when it aggregated, else the task."""
        match event.job:
            case AggregateRound(task, record):
                failed = core.AggregationFailed(event.reason)
                yield from self.on_event(task.task, record.state.number, failed, now_s)
            case PrepareModel(name):
                task = self._desk.task(name)
                failing = tasks.fail(task.progress, event.reason)
                yield from self._openings.end_if_final(replace(task, progress=failing), now_s)
            case EvaluateModel(task, number):
                unknown = ModelEvaluated(task.task, number, problem=event.reason)
                yield from self.on_evaluated(unknown, now_s)
            case ExportModel():
                return

    def recover(self, now_s: float, *, was_clean: bool) -> Iterator[Outgoing]:
        """Take up the heavy work that was due when central stopped; damage is found here.

        Args:
            now_s: Now, unix seconds.
            was_clean: Whether it stopped in order; else the work itself may have ended it, and is
                not begun again for ever.
        """
        for task in self._desk.store.live_tasks():
            fault = self._assignments.fault(task)
            if fault is not None:
                self.give_up(task, fault, now_s)
                failed = replace(task, progress=tasks.fail(task.progress, fault))
                yield from self._openings.end_if_final(failed, now_s)
            elif self._desk.is_in_hand(task.task):
                continue  # its message came before the word that we are connected
            elif task.progress.step == "round":
                event = core.AggregationInterrupted(was_clean=was_clean)
                yield from self.on_event(task.task, task.progress.round, event, now_s)
            elif task.progress.step in ("preparing", "evaluating"):
                yield from self._recover(task, now_s, was_clean=was_clean)
            failpoint("central.work.recovered")

    def _recover(self, task: TaskRecord, now_s: float, *, was_clean: bool) -> Iterator[Outgoing]:
        if not was_clean:
            progress, may_again = tasks.interrupt(task.progress)
            task = replace(task, progress=progress)
            if not may_again:
                yield from self._give_up_work(task, now_s)
                return
            self._desk.save_task(task)
        if task.progress.step == "evaluating":
            self._desk.jobs.append(EvaluateModel(task, task.progress.round - 1))
            return
        fit = self._openings.fit(task)
        if fit.data is not None:
            self._desk.jobs.append(PrepareModel(task.task, task.submission, fit.data))
            return
        progress = replace(task.progress, step="selecting")
        self._desk.save_task(replace(task, progress=progress))

    def _give_up_work(self, task: TaskRecord, now_s: float) -> Iterator[Outgoing]:
        times = f"begun {task.progress.interruptions} times and never ended"
        if task.progress.step == "evaluating":
            number = task.progress.round - 1
            unknown = ModelEvaluated(task.task, number, problem=f"its evaluation was {times}")
            yield from self.on_evaluated(unknown, now_s)
            return
        failing = tasks.fail(task.progress, f"building the first model was {times}")
        yield from self._openings.end_if_final(replace(task, progress=failing), now_s)

    # -- ends ------------------------------------------------------------------------------

    def cancel(self, task: TaskRecord, now_s: float) -> Iterator[Outgoing]:
        """Cancel a task; its open round is abandoned, the last committed model stays."""
        in_round = self._desk.open_round(task) is not None
        self.give_up(task, "the task was cancelled", now_s)
        progress = tasks.cancel(task.progress, in_round=in_round)
        cancelled = replace(task, progress=progress)
        failpoint("central.task.cancelled")
        yield from self._openings.end_if_final(cancelled, now_s)

    def give_up(self, task: TaskRecord, reason: str, now_s: float) -> None:
        """Abandon the open round of a task, if there is one; its progress is the caller's."""
        record = self._desk.open_round(task)
        if record is not None:
            state, _ = core.transition(record.state, core.TaskEnded(reason))
            self._desk.store.settle(task.task, state.number, (), reason)
            self._close(task, replace(record, state=state), "task", now_s)

    def _close(
        self, task: TaskRecord, record: RoundRecord, cause: Cause | None, now_s: float
    ) -> None:
        """Save the end of a round; ``cause`` is None when its record has a new model."""
        model = record.model_sha256
        rows = self._desk.store.contributions(record.task, record.state.number)
        summary = RoundSummary(
            round=record.state.number,
            outcome="committed" if model else "abandoned",
            reason=record.state.reason,
            late=self._desk.store.late(record.task, record.state.number),
            clients=len(record.contributors or ()) if model else 0,
            seconds=max(0.0, round(now_s - record.opened_s, 4)),
            uplink_bytes=sum(row.size for row in rows),
            uplink_wire_bytes=sum(row.uplink_wire_bytes for row in rows),
            downlink_wire_bytes=sum(row.downlink_wire_bytes for row in rows),
            codecs=Counter(label(row.codec, row.codec_params) for row in rows if row.codec),
            bids=record.state.bids,
            granted=len(record.state.grants or ()),
            downlink_bytes=self._assignments.announced_bytes(task, record)
            * len(record.state.cohort),
        )
        self._bids.forget(record.task, record.state.number)
        self._desk.store.save_round(replace(record, ended_s=now_s, summary=summary))
        end = RoundEnd(summary, cause, len(record.state.cohort), len(rows))
        self._desk.meter.round_ended(end)
        failpoint("central.round.closed")
        self._assignments.ended(record.task, record.state.number)
        self._desk.touch(task.task)
        self._desk.wants_schedule = True


def _size_fault(task: TaskRecord, parameters: int) -> str | None:
    """Return why what central keeps of a task from round to round would be too much."""
    asked = task.submission
    fault = None if asked.downlink is None else downlink.size_fault(parameters)
    if fault is None and memories.kind(asked) == "lazy":
        fault = lazy_sum.size_fault(task.min_clients, parameters)
    return fault
