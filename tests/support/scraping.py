"""Metrics as Prometheus reads them: over HTTP, from a program whose loop the test turns."""

import queue
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from central.adapters.metrics import CentralMetrics
from central.adapters.store import DATABASE as CENTRAL_DATABASE
from central.service import standing as central_standing
from central.settings import CentralSettings
from regional_gateway.adapters.metrics import GatewayMetrics
from regional_gateway.app import DATABASE as GATEWAY_DATABASE
from regional_gateway.service import standing as gateway_standing
from tests.support.brokers import HOST, free_port
from transport.loop import ServiceLoop
from transport.traffic import Traffic


@dataclass
class MeteredSession:
    """A session that tells fixed bytes."""

    name: str
    is_connected: bool = True
    is_alive: bool = True
    traffic: Traffic = field(default_factory=lambda: Traffic(1000, 2000))

    def publish(self, message):
        return True


@dataclass
class Page:
    """One scrape: types by name, and values by name and labels."""

    text: str
    types: dict[str, str] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    def __post_init__(self):
        for line in self.text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.types[name] = kind
        for family in text_string_to_metric_families(self.text):
            name = family.name + ("_total" if family.type == "counter" else "")
            for sample in family.samples:
                self.labels.setdefault(name, set()).update(set(sample.labels) - {"le"})
                self.values[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name, **labels):
        return self.values.get((name, frozenset(labels.items())))


class Scraped:
    """A program's metrics at a port of this machine."""

    def __init__(self, metrics, loop: ServiceLoop, sessions, port: int) -> None:
        self.metrics = metrics
        self.loop = loop
        self.port = port
        metrics.serve(loop, sessions)

    def scrape(self, *, is_stuck: bool = False) -> Page:
        """Return the page; the loop turns meanwhile on this thread, as it must, or is stuck."""
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(fetch(self.port)), daemon=True)
        thread.start()
        while thread.is_alive():
            if not is_stuck:
                self.loop.wake()
                self.loop.turn()
            thread.join(0.01)
        return Page(found[0])


def fetch(port: int, path: str = "/metrics", method: str = "GET") -> str:
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20.0) as answer:
        return answer.read().decode()


def scraped_central(rig, **settings) -> Scraped:
    """Give a ``CentralRig`` metrics; what it does from now on is counted."""
    port = free_port()
    settings = CentralSettings(state_dir=rig.root, metrics_port=port, **settings)
    metrics = CentralMetrics(settings, rig.root / CENTRAL_DATABASE, lambda: rig.now_s)
    rig.desk.meter = metrics
    rig.worker.jobs = _Timed(metrics.timed(rig.worker.jobs.work))
    rig.handler = metrics.observe(rig.handler, partial(central_standing.take_standing, rig.desk))
    sessions = {"main": MeteredSession("main")}
    rig.events = queue.SimpleQueue()
    return Scraped(metrics, _loop(rig, sessions, rig.handler, metrics), sessions, port)


def scraped_gateway(rig, **settings) -> Scraped:
    """Give a gateway's ``Rig`` metrics; it begins a new life with them."""
    port = free_port()
    settings = rig.settings.model_copy(update={"metrics_port": port, **settings})
    database = settings.state_dir / GATEWAY_DATABASE
    metrics = GatewayMetrics(settings, database, lambda: rig.now_s)
    rig.begin_with(metrics)
    for session in (rig.up, rig.down):
        session.traffic = Traffic(1000, 2000)
    handler = metrics.observe(rig.gateway, partial(gateway_standing.take_standing, rig.parts))
    sessions = {"uplink": rig.up, "downlink": rig.down}
    rig.loop = _loop(rig, sessions, handler, metrics)
    return Scraped(metrics, rig.loop, sessions, port)


@dataclass
class _Timed:
    work: Callable


def _loop(rig, sessions, handler, metrics):
    return ServiceLoop(
        rig.connection,
        rig.events,
        sessions,
        handler,
        lambda: rig.now_s,
        pause=lambda _: None,
        committed=metrics.committed,
    )
