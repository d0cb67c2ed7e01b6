"""The gateway's composition root: names the adapters, starts the sessions, runs the loop."""

import os
import queue
import secrets
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count

import numpy as np
import structlog

from regional_gateway.adapters.store import (
    DATABASE,
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    SqliteStore,
)
from regional_gateway.service.gateway import Gateway
from regional_gateway.service.links import DOWNLINK, UPLINK, gateway_source
from regional_gateway.service.metering import Meter, NoMeter
from regional_gateway.service.parts import Fittings, Limits, Parts, build
from regional_gateway.service.standing import Standing, take_standing
from regional_gateway.settings import GatewaySettings
from schemas.topics import downlink_filters, uplink_filters
from transport.database import (
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    adopt_boot,
    explained,
    next_boot,
    open_database,
    transaction,
)
from transport.events import Outgoing
from transport.failpoint_catalogue import arm_program
from transport.fence import Fence, FencedError
from transport.frames import FrameWriter
from transport.liveness import Liveness
from transport.loop import ServiceLoop, SessionDeadError, steady_clock
from transport.measuring import Measuring, MetricsError, Unmeasured, library_missing
from transport.objects import ObjectStore
from transport.outbox import Outbox
from transport.parking import Parking
from transport.session import PahoSession
from transport.state_lock import StateLock, StateLockedError

#: What keeps a gateway from running, told to a person in one line.
StartError = (
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    FencedError,
    MetricsError,
    SessionDeadError,
    StateLockedError,
)

UPDATES = "custody"
MODELS = "models"

_log = structlog.get_logger()


def run(settings: GatewaySettings) -> int:
    """Run the gateway until SIGTERM or SIGINT; return the exit code.

    Raises:
        FailpointError: The environment arms a failpoint that is not there.
        StateLockedError: Another process runs on this state directory.
        FencedError: Another process has taken the database over.
        DatabaseCorruptError: The database is damaged.
        DatabaseUnusableError: The database cannot be used, for want of space say.
        DatabaseVersionError: It was written by another version.
        SessionDeadError: A session ended by itself.
        BrokerUrlError: A broker's URL does not fit.
        MetricsError: ``metrics_port`` cannot be served.
    """
    arm_program("gateway", os.environ)
    database = settings.state_dir / DATABASE
    with (
        StateLock(settings.state_dir),
        explained(database),
        closing(open_database(database, SCHEMA, SCHEMA_VERSION, MIGRATIONS)) as connection,
    ):
        return _serve(settings, connection)


def _serve(settings: GatewaySettings, connection: sqlite3.Connection) -> int:
    liveness = Liveness.of_process(settings.state_dir)
    clock = steady_clock()
    rng = np.random.default_rng(secrets.randbits(64))
    measured, meter = _metrics(settings, clock)
    fence = Fence.claim(connection)
    with transaction(connection):
        boot = next_boot(connection, clock())
    frames = FrameWriter(gateway_source(settings.region), boot, rng, clock)
    parts = compose(settings, connection, frames, rng, meter)
    handler = measured.observe(Gateway(parts), partial(take_standing, parts))
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    uplink = _session(settings, UPLINK, events, parts.devices.farewell("lost"))
    downlink = _session(settings, DOWNLINK, events, None)
    parts.on_boot.append(partial(_renew_will, uplink, parts))
    sessions = {UPLINK: uplink, DOWNLINK: downlink}
    loop = ServiceLoop(
        connection,
        events,
        sessions,
        handler,
        clock,
        fence=fence,
        committed=measured.committed,
        liveness=liveness,
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: loop.stop())
    measured.serve(loop, sessions)
    _log.info("gateway_started", region=settings.region, boot=boot)
    uplink.start()
    downlink.start()
    try:
        loop.run()
    except FencedError:
        uplink.stop()  # without a farewell: another process speaks in this name now
        raise
    finally:
        measured.close()
        uplink.stop(parts.devices.farewell("stopped"))
        downlink.stop()
    _log.info("gateway_stopped", region=settings.region, counts=dict(loop.counts))
    return 0


def compose(
    settings: GatewaySettings,
    connection: sqlite3.Connection,
    frames: FrameWriter,
    rng: np.random.Generator,
    meter: Meter | None = None,
) -> Parts:
    """Put the use cases on their database and files; reads what is stored."""
    state_dir = settings.state_dir.resolve()
    fittings = Fittings(
        region=settings.region,
        store=SqliteStore(connection),
        outbox=Outbox(connection),
        updates=ObjectStore(state_dir / UPDATES),
        models=ObjectStore(state_dir / MODELS),
        frames=frames,
        tokens=count(1),
        adopt_boot=partial(adopt_boot, connection),
        rng=rng,
        parked=Parking(connection).summary,
        meter=meter or NoMeter(),
    )
    limits = Limits(settings.custody_quota_bytes, settings.cache_bytes, settings.silent_after_s)
    return build(fittings, limits)


def _metrics(
    settings: GatewaySettings, clock: Callable[[], float]
) -> tuple[Measuring[Standing], Meter]:
    """Return what tells how the gateway is, and what counts for it.

    Raises:
        MetricsError: Prometheus's library is not installed, or the port is in use.
    """
    if settings.metrics_port is None:
        return Unmeasured(), NoMeter()
    try:
        from regional_gateway.adapters.metrics import (  # noqa: PLC0415 - an optional package
            GatewayMetrics,
        )
    except ImportError as error:
        raise library_missing(error) from error
    metrics = GatewayMetrics(settings, settings.state_dir / DATABASE, clock)
    return metrics, metrics


def _renew_will(session: PahoSession, parts: Parts) -> None:
    session.will = parts.devices.farewell("lost")


def _session(
    settings: GatewaySettings,
    name: str,
    events: "queue.SimpleQueue[object]",
    will: Outgoing | None,
) -> PahoSession:
    is_uplink = name == UPLINK
    region = settings.region
    return PahoSession(
        settings.uplink_url if is_uplink else settings.broker,
        name=name,
        mqtt_client_id=f"fedfleet-gw-{region}-{'up' if is_uplink else 'down'}",
        filters=uplink_filters(region) if is_uplink else downlink_filters(region),
        events=events,
        will=will,
        protocol=settings.mqtt_protocol,
        keepalive_s=settings.keepalive_s,
        password=settings.uplink_password if is_uplink else settings.password,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )
