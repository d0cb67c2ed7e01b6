"""Central's metrics for Prometheus; docs/metrics.md lists them."""

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from central.core.round_events import Cause
from central.service.metering import Accepted, RoundEnd
from central.service.ports import (
    AggregateRound,
    EvaluateModel,
    ExportModel,
    Job,
    JobEvent,
    JobFailed,
    PrepareModel,
)
from central.service.standing import Standing
from central.settings import CentralSettings
from schemas.messages import Receipt
from schemas.tasks import FINAL_STATES, TaskState
from transport.program_metrics import NONE, Codes, ProgramMetrics

_ROUND_BUCKETS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_JOB_BUCKETS_S = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_JOBS: dict[type[Job], str] = {
    PrepareModel: "preparation",
    AggregateRound: "aggregation",
    EvaluateModel: "evaluation",
    ExportModel: "export",
}
_LIVE_STATES = ("waiting", "running", "paused")
_PHASES = ("reporting", "aggregating")
_DEVICE_STATES = ("online", "silent", "offline", "unreachable")


class CentralMetrics(ProgramMetrics[Standing]):
    """Implements ``central.service.metering.Meter`` and ``transport.measuring.Measuring``."""

    def __init__(
        self, settings: CentralSettings, database: Path, clock: Callable[[], float]
    ) -> None:
        """Begin with zeros.

        Args:
            settings: Central's.
            database: Its file.
            clock: The loop's.
        """
        super().__init__("central", settings, database, clock)
        self._by_device = settings.metrics_device_labels
        self._codes = Codes()
        self._add_rounds()
        self._add_updates()
        self._begin_at_zero()

    def _add_rounds(self) -> None:
        self._rounds = self._counter("rounds_total", "Rounds that have ended.", "outcome", "cause")
        self._round_times = self._histogram(
            "round_duration_seconds",
            "Time from the opening of a round to its end.",
            _ROUND_BUCKETS_S,
            "outcome",
        )
        self._selected = self._counter("clients_selected_total", "Clients asked in ended rounds.")
        self._contributions = self._counter(
            "contributions_total", "Accepted updates of ended rounds, by their end.", "outcome"
        )
        self._announced = self._counter(
            "downlink_payload_bytes_total", "Models and deltas announced to cohorts, bytes."
        )
        self._tasks = self._counter("tasks_ended_total", "Tasks that have ended.", "state")
        self._jobs = self._histogram(
            "job_duration_seconds",
            "Time of one heavy step, off the loop.",
            _JOB_BUCKETS_S,
            "job",
            "outcome",
        )

    def _add_updates(self) -> None:
        self._receipts = self._counter(
            "receipts_total", "Answers to offers of updates, repeated ones too.", "status", "code"
        )
        self._payload = self._counter(
            "update_payload_bytes_total", "Accepted updates as encoded, bytes.", "codec"
        )
        self._plain = self._counter(
            "update_uncompressed_bytes_total", "The same updates as float32, bytes.", "codec"
        )
        self._up = self._counter(
            "uplink_wire_bytes_total", "Bytes that devices have sent for accepted updates."
        )
        self._down = self._counter(
            "downlink_wire_bytes_total", "Bytes that devices have received for them."
        )
        self._device_updates = (
            self._counter("device_updates_total", "Accepted updates.", "region", "device")
            if self._by_device
            else None
        )

    def _begin_at_zero(self) -> None:
        """Make the series that are sure to come: a first increase shows only over a zero."""
        self._rounds.labels("committed", NONE)
        for outcome in ("committed", "abandoned"):
            self._round_times.labels(outcome)
        for cause in get_args(Cause):
            self._rounds.labels("abandoned", cause)
        for outcome in ("counted", "discarded"):
            self._contributions.labels(outcome)
        for state in FINAL_STATES - {"rejected"}:
            self._tasks.labels(state)
        for status in ("accepted", "duplicate"):
            self._receipts.labels(status, NONE)
        self._receipts.labels("late", "E_LATE")
        for job in _JOBS.values():
            self._jobs.labels(job, "done")

    # -- what happens ------------------------------------------------------------------------

    def receipted(self, receipt: Receipt) -> None:
        """Take central's word on an offer."""
        self._receipts.labels(receipt.status, self._codes.of(receipt.code)).inc()

    def accepted(self, update: Accepted) -> None:
        """Take an update that was accepted."""
        self._payload.labels(update.codec).inc(update.payload_bytes)
        self._plain.labels(update.codec).inc(update.plain_bytes)
        self._up.inc(update.uplink_wire_bytes)
        self._down.inc(update.downlink_wire_bytes)
        if self._device_updates is not None:
            self._device_updates.labels(update.region, update.device).inc()

    def round_ended(self, end: RoundEnd) -> None:
        """Take the end of a round."""
        summary = end.summary
        self._rounds.labels(summary.outcome, end.cause or NONE).inc()
        self._round_times.labels(summary.outcome).observe(summary.seconds)
        self._selected.inc(end.cohort)
        self._contributions.labels("counted").inc(summary.clients)
        self._contributions.labels("discarded").inc(end.contributions - summary.clients)
        self._announced.inc(summary.downlink_bytes)

    def task_ended(self, state: TaskState) -> None:
        """Take the end of a task."""
        self._tasks.labels(state).inc()

    def timed(self, work: Callable[[Job], JobEvent | None]) -> Callable[[Job], JobEvent | None]:
        """Return ``work`` with a clock around it; worker threads call it."""

        def timed_work(job: Job) -> JobEvent | None:
            began_s, outcome = time.perf_counter(), "failed"
            try:
                event = work(job)
                outcome = "failed" if isinstance(event, JobFailed) else "done"
            finally:
                seconds = time.perf_counter() - began_s
                self._jobs.labels(_JOBS[type(job)], outcome).observe(seconds)
            return event

        return timed_work

    # -- how things stand --------------------------------------------------------------------

    def shown(self, content: Standing) -> Iterator[Metric]:
        """Return the gauges that a snapshot gives."""
        tasks = {(state,): content.tasks[state] for state in _LIVE_STATES}
        yield self.gauge("tasks", "Tasks that have not ended.", tasks, "state")
        rounds = {(phase,): content.rounds[phase] for phase in _PHASES}
        yield self.gauge("open_rounds", "Rounds that have not ended.", rounds, "phase")
        yield from self._shown_tasks(content)
        yield from self._shown_fleet(content)
        text = "Large updates on their way here."
        yield self.gauge("transfers", text, {(): content.pulls})
        text = "Messages that could not be handled and are kept for a person."
        yield self.gauge("parked_messages", text, {(): content.parked})

    def _shown_tasks(self, content: Standing) -> Iterator[Metric]:
        committed = {(one.task,): one.committed for one in content.told}
        text = "Rounds that a task has committed; told until ten minutes after its end."
        yield self.gauge("task_committed_rounds", text, committed, "task")
        metrics = {
            (one.task, name): value for one in content.told for name, value in one.metrics.items()
        }
        text = "What a task's newest model was measured at, on central's held-out data."
        yield self.gauge("task_metric", text, metrics, "task", "metric")

    def _shown_fleet(self, content: Standing) -> Iterator[Metric]:
        gateways = Counts("online" if up else "offline" for up in content.gateways.values())
        found = {(state,): gateways[state] for state in ("online", "offline")}
        yield self.gauge("gateways", "Known gateways.", found, "state")
        regions = {one.region for one in content.devices} | set(content.gateways)
        devices = {(region, state): 0 for region in sorted(regions) for state in _DEVICE_STATES}
        for one in content.devices:
            devices[one.region, one.state] += 1
        text = "Known devices; silent ones are online and not heard of."
        yield self.gauge("devices", text, devices, "region", "state")
        if self._by_device:
            online = {
                (one.region, one.device): float(one.state == "online") for one in content.devices
            }
            text = "Whether a device can be reached."
            yield self.gauge("device_online", text, online, "region", "device")

    # -- inside ------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self.prefix + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(self.prefix + name, text, labels, registry=self.registry, buckets=buckets)
