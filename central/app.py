"""Central's composition root: names the adapters, starts the parts, runs the loop."""

import os
import queue
import secrets
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import structlog

from central.adapters.catalog import InstalledCatalog, load_strategies
from central.adapters.export_process import ExportProcess
from central.adapters.jobs import EXPORTED, Jobs, reader_of
from central.adapters.store import DATABASE, MIGRATIONS, SCHEMA, SCHEMA_VERSION, SqliteStore
from central.adapters.stored_rounds import read_model
from central.adapters.worker import Workers
from central.modeling.modeler import GraphModeler
from central.service.announcements import state_message
from central.service.desk import Desk
from central.service.metering import Meter, NoMeter
from central.service.orchestrator import Orchestrator
from central.service.ports import ExportModel, Job, JobEvent
from central.service.records import TaskRecord
from central.service.standing import Standing, take_standing
from central.settings import CentralSettings
from schemas.topics import central_filters
from transport.broker_url import parse_broker_url
from transport.database import (
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    explained,
    next_boot,
    open_database,
    transaction,
)
from transport.failpoint_catalogue import arm_program
from transport.fence import Fence, FencedError
from transport.frames import FrameWriter
from transport.liveness import Liveness
from transport.loop import ServiceLoop, SessionDeadError, steady_clock
from transport.measuring import Measuring, MetricsError, Unmeasured, library_missing
from transport.objects import ObjectDamagedError, ObjectStore, check_object
from transport.parking import Parking
from transport.puller import Puller
from transport.session import PahoSession
from transport.state_lock import StateLock, StateLockedError
from updates.kernels import load as load_kernels

#: What keeps central from running, told to a person in one line.
StartError = (
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    FencedError,
    MetricsError,
    SessionDeadError,
    StateLockedError,
)
Work = Callable[[Job], JobEvent | None]

MODELS = "models"
OBJECTS = "objects"
FORWARD = "forward"
_DAY_S = 86_400.0
_LOOKED_BACK = 3

_log = structlog.get_logger()


class NothingToExportError(Exception):
    """There is no such task here, or it has no model yet."""


def run(settings: CentralSettings) -> int:
    """Run central until SIGTERM or SIGINT; return the exit code.

    Raises:
        FailpointError: The environment arms a failpoint that is not there.
        PluginError: A strategy of the settings cannot be imported.
        DataError: A held-out set cannot be loaded.
        StateLockedError: Another process runs on this state directory.
        FencedError: Another process has taken the database over.
        DatabaseCorruptError: The database is damaged.
        DatabaseUnusableError: The database cannot be used, for want of space say.
        SessionDeadError: The MQTT session ended by itself.
        MetricsError: ``metrics_port`` cannot be served.
    """
    arm_program("central", os.environ)
    with StateLock(settings.state_dir):
        return _serve(settings)


def _serve(settings: CentralSettings) -> int:
    liveness = Liveness.of_process(settings.state_dir)
    strategies = load_strategies(settings.strategies)
    cache = _cache_of(settings)
    modeler = GraphModeler(settings.models, settings.eval_data, cache, settings.prepare_timeout_s)
    database = settings.state_dir / DATABASE
    clock = steady_clock()
    measured, meter, timed = _metrics(settings, clock)
    rng = np.random.default_rng(secrets.randbits(64))
    with (
        explained(database),
        closing(open_database(database, SCHEMA, SCHEMA_VERSION, MIGRATIONS)) as connection,
    ):
        fence = Fence.claim(connection)
        with transaction(connection):
            boot = next_boot(connection, clock())
        objects = ObjectStore(settings.state_dir)
        events: queue.SimpleQueue[object] = queue.SimpleQueue()
        exporter = ExportProcess(settings.models, cache, settings.prepare_timeout_s)
        reader, models = reader_of(database), settings.state_dir / MODELS
        kernels = load_kernels if settings.compiled_sums else None
        jobs = Jobs(reader, objects, modeler, exporter, strategies, models, kernels)
        worker = Workers(events, timed(jobs.work))
        desk = Desk(
            store=SqliteStore(connection),
            objects=objects,
            catalog=InstalledCatalog(modeler, strategies),
            frames=FrameWriter("central", boot, rng, clock),
            puller=Puller(objects),
            rng=rng,
            min_clients=settings.min_clients,
            boot=boot,
            read_layout=lambda path: read_model(path)[0],
            parked=Parking(connection).summary,
            meter=meter,
        )
        handler = Orchestrator(
            desk,
            worker,
            keep_task_s=settings.keep_task_days * _DAY_S,
            was_clean=fence.was_clean,
        )
        session = _session(settings, events, boot, clock())
        observed = measured.observe(handler, partial(take_standing, desk))
        sessions = {"main": session}
        loop = ServiceLoop(
            connection,
            events,
            sessions,
            observed,
            clock,
            fence=fence,
            committed=measured.committed,
            liveness=liveness,
        )
        measured.serve(loop, sessions)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: loop.stop())
        _log.info("central_started", boot=boot, broker=parse_broker_url(settings.broker).shown)
        worker.start()
        for record in _unwritten(SqliteStore(connection), settings.state_dir):
            worker.submit(ExportModel(record))
        session.start()
        try:
            loop.run()
        except FencedError:
            session.stop()  # without a farewell: another process speaks in this name now
            raise
        finally:
            session.stop(state_message("offline", boot, clock()))
            measured.close()
            worker.end()
            exporter.close()
            worker.join()
    _log.info("central_stopped", boot=boot)
    return 0


def _metrics(
    settings: CentralSettings, clock: Callable[[], float]
) -> tuple[Measuring[Standing], Meter, Callable[[Work], Work]]:
    """Return what tells how central is, what counts for it, and what times the heavy work.

    Raises:
        MetricsError: Prometheus's library is not installed, or the port is in use.
    """
    if settings.metrics_port is None:
        return Unmeasured(), NoMeter(), lambda work: work
    try:
        from central.adapters.metrics import CentralMetrics  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise library_missing(error) from error
    metrics = CentralMetrics(settings, settings.state_dir / DATABASE, clock)
    return metrics, metrics, metrics.timed


def export(
    settings: CentralSettings, task: str, kind: Literal["onnx", "safetensors"], target: Path
) -> dict[str, object]:
    """Write a task's newest model to ``target``; central may be running meanwhile.

    Args:
        settings: Central's own, for its state, its models and its cache.
        task: Its id.
        kind: Format of the file.
        target: The file; its folder must exist.

    Returns:
        The task, its committed rounds, the model's SHA-256 and the file written.

    Raises:
        NothingToExportError: There is no such task here, or it has no model yet.
    """
    state_dir = settings.state_dir
    database = state_dir / DATABASE
    if not database.is_file():
        message = f"state_dir: {state_dir} is not central's, it has no {DATABASE}"
        raise NothingToExportError(message)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        record = SqliteStore(connection).task(task)
    if record is None or record.model_sha256 is None or record.plan is None:
        message = f"task: {task!r} is not known here or has no model yet"
        raise NothingToExportError(message)
    try:
        source = check_object(state_dir / OBJECTS / record.model_sha256)
    except ObjectDamagedError as error:
        raise NothingToExportError(str(error)) from error
    if kind == "safetensors":
        shutil.copyfile(source, target)
    elif is_exported(state_dir, task, record.model_sha256):
        shutil.copyfile(state_dir / MODELS / task / "model.onnx", target)
    else:
        cache, timeout_s = _cache_of(settings), settings.prepare_timeout_s
        modeler = GraphModeler(settings.models, (), cache, timeout_s)
        layout, vector = read_model(source)
        plan = record.plan
        modeler.export(record.submission, plan.data, layout, vector, target, plan.forward_key)
    return {
        "task": task,
        "committed": record.progress.committed,
        "model_sha256": record.model_sha256,
        "file": str(target),
    }


def _cache_of(settings: CentralSettings) -> Path:
    return settings.model_cache or settings.state_dir / FORWARD


def is_exported(state_dir: Path, task: str, model_sha256: str) -> bool:
    """Tell whether central has written a task's model out as files for persons."""
    written = state_dir / MODELS / task / EXPORTED
    return written.is_file() and written.read_text(encoding="ascii") == model_sha256


def _unwritten(store: SqliteStore, state_dir: Path) -> list[TaskRecord]:
    """Return the newest ended tasks whose model central was stopped before writing out."""
    return [
        record
        for record in store.ended_tasks()[-_LOOKED_BACK:]
        if record.progress.committed
        and record.model_sha256 is not None
        and not is_exported(state_dir, record.task, record.model_sha256)
    ]


def _session(
    settings: CentralSettings, events: "queue.SimpleQueue[object]", boot: int, now_s: float
) -> PahoSession:
    return PahoSession(
        settings.broker,
        name="main",
        mqtt_client_id="fedfleet-central",
        filters=central_filters(),
        events=events,
        will=state_message("offline", boot, now_s),
        protocol=settings.mqtt_protocol,
        keepalive_s=settings.keepalive_s,
        password=settings.password,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )
