"""Metrics that central and the gateways have in common; this is where Prometheus's library is.

Names follow https://prometheus.io/docs/practices/naming/. Three kinds, by who writes them:

- Counters and histograms, added to by the loop's thread when something happens.
- Plain counts of the loop and its sessions, read when Prometheus asks.
- The snapshot, which the loop's thread takes when Prometheus asks.
"""

import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from transport.handler import Handler
from transport.loop import ServiceLoop
from transport.measuring import Metered
from transport.metrics_server import MetricsServer
from transport.metrics_settings import MetricsSettings
from transport.snapshots import Observed, Snapshots

S = TypeVar("S")
#: Values of the labels, in their order.
K = TypeVar("K", bound=tuple[str, ...])

#: Prometheus waits 10 s by default; a loop that does not answer in this time is busy or stuck.
SNAPSHOT_TIMEOUT_S = 2.0
COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: Label value of what has none.
NONE = "none"
#: Codes come in messages; so many are told apart.
_MAX_CODES = 64
_REFUSED = "refused:"

Families = Iterable[Metric]


class ProgramMetrics(ABC, Generic[S]):
    """Implements ``transport.measuring.Measuring`` for one program.

    Attributes:
        registry: Where the program's own metrics belong too.
        prefix: Begins every name: ``fedfleet_central_``.
    """

    def __init__(
        self,
        program: str,
        settings: MetricsSettings,
        database: Path,
        clock: Callable[[], float],
    ) -> None:
        """Take the port; nothing is told before ``serve``.

        Args:
            program: ``central`` or ``gateway``.
            settings: Where to listen.
            database: The program's, whose size is told.
            clock: The loop's.

        Raises:
            MetricsError: The port cannot be listened on.
        """
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.prefix = f"fedfleet_{program}_"
        self._database = database
        self._clock = clock
        self._observed: Observed[S] | None = None
        self._snapshots: Snapshots[S] | None = None
        host, port = settings.metrics_host, settings.metrics_port
        self._server = MetricsServer(self.registry, host, port) if port else None
        self._commits = Histogram(
            f"{self.prefix}commit_duration_seconds",
            "Time of one turn of the loop: events handled and committed.",
            buckets=COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self._tell_build()
        ProcessCollector(registry=self.registry)

    @abstractmethod
    def shown(self, content: S) -> Families:
        """Return the gauges that a snapshot gives."""

    def committed(self, seconds: float) -> None:
        """Take the time of one turn of the loop."""
        self._commits.observe(seconds)

    def observe(self, handler: Handler, take: Callable[[float], S]) -> Handler:
        """Return the handler for the loop; ``take`` says how things stand, on its thread."""
        self._snapshots = Snapshots(take, self._clock)
        self._observed = Observed(handler, self._snapshots)
        return self._observed

    def serve(self, loop: ServiceLoop, sessions: Mapping[str, Metered]) -> None:
        """Begin to tell."""
        self.registry.register(_Reading(lambda: self._read(loop, sessions)))
        if self._server is not None:
            self._server.start()

    def close(self) -> None:
        """Tell no more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def counter(self, name: str, text: str, values: Mapping[K, float], *labels: str) -> Metric:
        """Return a family of counters that were counted elsewhere; ``name`` ends in _total."""
        family = CounterMetricFamily(
            self.prefix + name.removesuffix("_total"), text, labels=labels
        )
        for found, value in values.items():
            family.add_metric(found, value)
        return family

    def gauge(self, name: str, text: str, values: Mapping[K, float], *labels: str) -> Metric:
        """Return a family of gauges."""
        family = GaugeMetricFamily(self.prefix + name, text, labels=labels)
        for found, value in values.items():
            family.add_metric(found, value)
        return family

    def _tell_build(self) -> None:
        build = Gauge(
            f"{self.prefix}build_info",
            "Always 1; what runs is in the labels.",
            ("version", "python"),
            registry=self.registry,
        )
        build.labels(version=version("fedfleet"), python=platform.python_version()).set(1)

    def _read(self, loop: ServiceLoop, sessions: Mapping[str, Metered]) -> Iterator[Metric]:
        yield from self._of_loop(loop)
        yield from self._of_sessions(sessions)
        yield from self._of_disk()
        if self._snapshots is None:
            return
        snapshot = self._snapshots.ask(loop.wake, SNAPSHOT_TIMEOUT_S)
        if snapshot is not None:
            age_s = self._snapshots.age_s(snapshot)
            text = (
                "How old the gauges are that the loop has told; it grows while the loop is stuck."
            )
            yield self.gauge("snapshot_age_seconds", text, {(): age_s})
            yield from self.shown(snapshot.content)

    def _of_loop(self, loop: ServiceLoop) -> Iterator[Metric]:
        counts = dict(loop.counts)  # in one go: the loop's thread may add a key meanwhile
        told = {
            "events_handled_total": ("Events handled and committed.", "handled"),
            "events_failed_total": ("Tries to handle an event that raised.", "failed"),
            "events_parked_total": ("Events set aside after three tries.", "parked"),
            "storage_failures_total": ("Turns undone by a disk that is full.", "storage_failures"),
        }
        for name, (text, key) in told.items():
            yield self.counter(name, text, {(): counts.get(key, 0)})
        refused = {
            (key.removeprefix(_REFUSED),): count
            for key, count in counts.items()
            if key.startswith(_REFUSED)
        }
        text = "Messages refused because they break the contract."
        yield self.counter("messages_refused_total", text, refused, "code")

    def _of_sessions(self, sessions: Mapping[str, Metered]) -> Iterator[Metric]:
        traffic = {name: session.traffic for name, session in sessions.items()}
        connections = self._observed.connections if self._observed else {}
        up = {(name,): float(session.is_connected) for name, session in sessions.items()}
        yield self.gauge("mqtt_connected", "Whether the session stands.", up, "session")
        often = {(name,): connections.get(name, 0) for name in sessions}
        text = "Times that the session was connected; all but the first are reconnections."
        yield self.counter("mqtt_connections_total", text, often, "session")
        sent = {(name,): found.sent_bytes for name, found in traffic.items()}
        text = "Bytes that the session has sent: whole MQTT packets, and TLS around them."
        yield self.counter("mqtt_sent_bytes_total", text, sent, "session")
        received = {(name,): found.received_bytes for name, found in traffic.items()}
        text = "Bytes that the session has received: whole MQTT packets, and TLS around them."
        yield self.counter("mqtt_received_bytes_total", text, received, "session")

    def _of_disk(self) -> Iterator[Metric]:
        free = shutil.disk_usage(self._database.parent).free
        yield self.gauge(
            "state_free_bytes", "Free on the disk of the state directory.", {(): free}
        )
        files = (self._database, self._database.with_name(f"{self._database.name}-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        yield self.gauge("database_bytes", "Size of the database and its log.", {(): size})


class Codes:
    """Label values out of messages: as they come, until there are too many of them."""

    def __init__(self) -> None:
        self._known: set[str] = {NONE}

    def of(self, code: str | None) -> str:
        """Return the label value of a code."""
        found = code or NONE
        if found not in self._known:
            if len(self._known) >= _MAX_CODES:
                return "other"
            self._known.add(found)
        return found


class _Reading(Collector):
    """What is read when Prometheus asks."""

    def __init__(self, read: Callable[[], Families]) -> None:
        self._read = read

    def collect(self) -> Families:
        return self._read()

    def describe(self) -> Families:
        return ()
