"""A gateway's metrics for Prometheus; docs/metrics.md lists them."""

from collections import Counter as Counts
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from regional_gateway.service.custody import Load
from regional_gateway.service.metering import Origin
from regional_gateway.service.standing import Standing
from regional_gateway.settings import GatewaySettings
from schemas.messages import Receipt
from transport.program_metrics import NONE, Codes, ProgramMetrics

_CUSTODY_BUCKETS_S = (
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
    86400.0,
)
_DEVICE_STATES = ("online", "silent", "offline")


class GatewayMetrics(ProgramMetrics[Standing]):
    """Implements the gateway's ``Meter`` and ``transport.measuring.Measuring``."""

    def __init__(
        self, settings: GatewaySettings, database: Path, clock: Callable[[], float]
    ) -> None:
        """Begin with zeros.

        Args:
            settings: The gateway's.
            database: Its file.
            clock: The loop's.
        """
        super().__init__("gateway", settings, database, clock)
        self._by_device = settings.metrics_device_labels
        self._codes = Codes()
        self._receipts = self._counter(
            "receipts_total",
            "Receipts of updates: the gateway's own, and central's final ones.",
            "origin",
            "status",
            "code",
        )
        self._taken = self._counter("custody_taken_total", "Updates taken into custody.")
        self._taken_bytes = self._counter(
            "custody_taken_bytes_total", "Updates taken into custody, bytes as encoded."
        )
        self._custody_times = Histogram(
            f"{self.prefix}custody_duration_seconds",
            "Time from custody to central's final receipt.",
            registry=self.registry,
            buckets=_CUSTODY_BUCKETS_S,
        )
        self._device_updates = (
            self._counter("device_updates_total", "Updates taken into custody.", "device")
            if self._by_device
            else None
        )

        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Make the series that are sure to come: a first increase shows only over a zero."""
        self._receipts.labels("gateway", "held", NONE)
        for status in ("accepted", "duplicate"):
            self._receipts.labels("central", status, NONE)
        self._receipts.labels("central", "late", "E_LATE")

    def receipted(self, origin: Origin, receipt: Receipt) -> None:
        """Take a receipt on its way to a device."""
        self._receipts.labels(origin, receipt.status, self._codes.of(receipt.code)).inc()

    def taken(self, device: str, payload_bytes: int) -> None:
        """Take that an update came into custody."""
        self._taken.inc()
        self._taken_bytes.inc(payload_bytes)
        if self._device_updates is not None:
            self._device_updates.labels(device).inc()

    def released(self, seconds: float) -> None:
        """Take that central has ended an update which was in custody for so long."""
        self._custody_times.observe(seconds)

    def shown(self, content: Standing) -> Iterator[Metric]:
        """Return the gauges that a snapshot gives."""
        yield from self._shown_devices(content.devices)
        yield from self._shown_custody(content.custody)
        text = "Rounds that the region works on."
        yield self.gauge("assignments", text, {(): content.assignments})
        text = "Large updates that are offered and not in custody."
        yield self.gauge("transfers", text, {(): content.transfers})
        text = "Frames of devices that wait for the way to central."
        yield self.gauge("relay_frames", text, {(): content.relayed})
        text = "Messages that could not be handled and are kept for a person."
        yield self.gauge("parked_messages", text, {(): content.parked})

    def _shown_devices(self, devices: dict[str, str]) -> Iterator[Metric]:
        found = Counts(devices.values())
        text = "Known devices; silent ones are online and not heard of."
        states = {(state,): found[state] for state in _DEVICE_STATES}
        yield self.gauge("devices", text, states, "state")
        if self._by_device:
            online = {(device,): float(state == "online") for device, state in devices.items()}
            yield self.gauge("device_online", "Whether a device is heard of.", online, "device")

    def _shown_custody(self, load: Load) -> Iterator[Metric]:
        text = "Depth of the outbox: updates in custody that central has not ended."
        yield self.gauge("outbox_updates", text, {(): load.updates})
        text = "How long the oldest of them is there; 0: there is none."
        yield self.gauge("outbox_oldest_seconds", text, {(): load.oldest_s})
        text = "Size of the updates in custody."
        yield self.gauge("custody_bytes", text, {(): load.held_bytes})
        text = "Size of the updates that are being pulled and have their room in the quota."
        yield self.gauge("custody_promised_bytes", text, {(): load.promised_bytes})
        text = "Most bytes in custody and promised together."
        yield self.gauge("custody_quota_bytes", text, {(): load.quota_bytes})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self.prefix + name, text, labels, registry=self.registry)
