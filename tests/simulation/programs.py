"""The three programs in a simulated world: their real handlers, loops and tables, unchanged.

Each runs on one simulated disk through many lives. A life ends at any effect; what was committed
is what the next one finds.
"""

import functools
import os
import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from central.adapters.catalog import InstalledCatalog
from central.adapters.jobs import Jobs
from central.adapters.restores import mark_restored, newest_epoch
from central.adapters.store import SCHEMA as CENTRAL_SCHEMA
from central.adapters.store import SCHEMA_VERSION as CENTRAL_VERSION
from central.adapters.store import SqliteStore
from central.adapters.stored_rounds import read_model
from central.service.announcements import state_message
from central.service.desk import Desk
from central.service.orchestrator import Orchestrator
from central.service.ports import ExportModel, Job, JobDelayed, JobFailed
from device_agent import app as device_app
from device_agent.adapters.job_run import JobError, JobRun
from device_agent.adapters.store import SCHEMA_VERSION as DEVICE_VERSION
from device_agent.app import Device
from device_agent.core.job import Refusal
from device_agent.core.policy import LocalPolicy
from device_agent.service.ports import TrainingFailed, TrainingFinished, Work
from device_agent.settings import DeviceSettings
from regional_gateway import app as gateway_app
from regional_gateway.adapters.store import SCHEMA as GATEWAY_SCHEMA
from regional_gateway.adapters.store import SCHEMA_VERSION as GATEWAY_VERSION
from regional_gateway.service import devices as gateway_devices
from regional_gateway.service.gateway import Gateway
from regional_gateway.service.links import gateway_source
from regional_gateway.settings import GatewaySettings
from schemas.topics import central_filters, device_filters, downlink_filters, uplink_filters
from tests.simulation.clockwork import SimulatedCrashError
from tests.simulation.disk import (
    Files,
    SimulatedConnection,
    copy_of,
    full_disk,
    give_back,
    new_database,
)
from tests.simulation.network import SimulatedBroker, SimulatedSession
from tests.simulation.tiny import TinyMachine, TinyModeler, TinyTrainer, dataset_of
from tests.simulation.wire import spoken
from transport.database import is_storage_failure, next_boot, transaction
from transport.events import MessageArrived, Outgoing, SessionEvent
from transport.fence import Fence
from transport.frames import FrameWriter
from transport.loop import ServiceLoop
from transport.objects import ObjectStore
from transport.outbox import OUTBOX_SCHEMA
from transport.parking import Parking
from transport.puller import Puller

if TYPE_CHECKING:
    from tests.simulation.world import World

#: When the simulated world begins, unix seconds: 2001, so that no real file looks old in it.
EPOCH_S = 1.0e9
_LONGEST_IDLE_S = 15.0

device_schema = functools.cache(
    lambda: (
        Path(device_app.__file__).parent.joinpath("adapters/schema.sql").read_text()
        + OUTBOX_SCHEMA
    )
)
#: Reading a distribution's metadata takes a millisecond, at each of many starts.
_version = functools.cache(metadata.version)
device_app.version = _version  # type: ignore[attr-defined]
gateway_devices.version = _version  # type: ignore[attr-defined]


class SimulatedQueue:
    """A queue that never waits: time passes in the clockwork, not here."""

    def __init__(self) -> None:
        self.items: deque[object] = deque()

    def put(self, item: object) -> None:
        self.items.append(item)

    def get(self, timeout: float | None = None) -> object:
        if not self.items:
            raise queue.Empty
        return self.items.popleft()

    get_nowait = get


@dataclass(frozen=True, slots=True)
class Backup:
    """What a program had on its disk at one moment."""

    connection: SimulatedConnection
    objects: frozenset[Path]
    at_s: float


class Program:
    """One program: its disk, its lives, and its part in the world."""

    #: How much later than due a turn comes at most, when nothing has arrived: when all is well, and
    #: while it is not. It changes nothing that is promised.
    lateness_s = (20.0, 3.0)

    def __init__(self, world: "World", name: str, schema_sql: str, version: int) -> None:
        self.world = world
        self.name = name
        self.folder = world.folder / name.replace("/", "-")
        self.files = Files()
        self._kind = type(self).__name__
        self.connection: SimulatedConnection = new_database(self._kind, schema_sql, version)
        self._is_restored = False
        self.fence: Any = None
        self.is_running = False
        #: Whether it speaks with fields that the others do not know.
        self.is_newer = world.work.chance(world.swarm.newer)
        self.life = 0
        self.clock_offset_s = 0.0
        self.queue = SimulatedQueue()
        self.sessions: dict[str, SimulatedSession] = {}
        self.loop: Any = None
        self.handler: Any = None
        self.frames: Any = None
        self.crash_in: int | None = None
        self._turn = 0
        self._turn_at_s = float("inf")

    # -- lives -------------------------------------------------------------------------------

    def clock(self) -> float:
        return EPOCH_S + self.world.work.now_s + self.clock_offset_s

    def start(self) -> None:
        """Begin a life on what is committed."""
        if self.is_running:
            return
        self.life += 1
        self.is_running = True
        self.queue = SimulatedQueue()
        self.world.note(self, f"starts, life {self.life}")
        self.run(self._build)
        if self.is_running:
            self.world.ledger.began(self, self.frames.boot)
            for session in self.sessions.values():
                session.start()
            self.wake(0.01)

    def run(self, action: Callable[[], object]) -> None:
        """Do something in this program's name; it may be killed there."""
        world = self.world
        world.current, former = self, world.current
        self.connection.watch(self.effect if world.may_crash(self) else None)
        try:
            action()
        except SimulatedCrashError as crash:
            self.end(f"killed at {crash}")
        except Exception as error:
            if not is_storage_failure(error):
                raise
            self.end(f"ends: {error}")
        finally:
            self.connection.watch(None)
            world.current = former

    def effect(self, label: str) -> None:
        """Come to a point at which the program may be killed."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                raise SimulatedCrashError(label)
        world = self.world
        if not world.is_healed and world.work.chance(world.swarm.crash):
            raise SimulatedCrashError(label)

    def end(self, why: str, *, with_will: bool = True) -> None:
        """End this life without a word; what was not committed is gone."""
        if not self.is_running:
            return
        self.is_running = False
        self.world.note(self, why)
        self.world.faults += 1
        self.connection.lose_uncommitted()
        for session in self.sessions.values():
            session.leave(with_will=with_will)
        if self.world.work.chance(self.world.swarm.power_cut):
            self.files.cut_power(self._folders(), self.world.work.rng)
        self.world.ended(self)

    def leave(self) -> None:
        """Stop in order, as on SIGTERM."""
        if not self.is_running:
            return
        self.world.note(self, "stops")
        self.run(self.loop._guard.leave)
        if not self.is_running:
            return
        self.is_running = False
        for name, session in self.sessions.items():
            session.stop(self._farewell(name))
        self.world.ended(self)

    def back_up(self) -> Backup:
        """Copy what is committed, and note which objects there are."""
        objects = frozenset(
            path for folder in self._folders() if folder.is_dir() for path in folder.iterdir()
        )
        return Backup(copy_of(self.connection), objects, EPOCH_S + self.world.work.now_s)

    def restore(self, backup: Backup) -> None:
        """Begin from a backup: the disk was lost."""
        self.end("loses its disk and is restored from a backup")
        for folder in self._folders():
            for path in folder.iterdir() if folder.is_dir() else ():
                if path not in backup.objects:
                    path.unlink()
        self._exchange(copy_of(backup.connection), backup)

    def _exchange(self, restored: SimulatedConnection, backup: Backup) -> None:
        self.connection = restored
        self._is_restored = True

    def close(self) -> None:
        """Give the disk back at the end of the world."""
        if not self._is_restored:
            give_back(self._kind, self.connection)

    # -- turns -------------------------------------------------------------------------------

    def receive(self, event: SessionEvent) -> None:
        if self.world.work.trace.is_kept and isinstance(event, MessageArrived):
            self.world.note(self, f"<- {event.topic_name}")
        self.queue.put(event)
        self.wake(self.world.work.between(0.01, 0.2))

    def wake(self, in_s: float) -> None:
        """Have a turn by then."""
        at_s = self.world.work.now_s + in_s
        if at_s < self._turn_at_s:
            self._turn += 1
            self._turn_at_s = at_s
            self.world.work.after(in_s, partial(self._take_turn, self._turn, self.life))

    def _take_turn(self, number: int, life: int) -> None:
        if number == self._turn:
            self._turn_at_s = float("inf")
        if number != self._turn or life != self.life or not self.is_running:
            return
        self.run(self.loop.turn)
        self.world.looked(self)
        if self.is_running:
            self.wake(self._idle_s())

    def _idle_s(self) -> float:
        if self.queue.items:
            return 0.001
        now_s = self.clock()
        due_s = self.handler.next_due_s(now_s)
        idle_s = _LONGEST_IDLE_S if due_s is None else min(due_s - now_s, _LONGEST_IDLE_S)
        if self.loop._backlog._kept:
            idle_s = min(idle_s, 1.0)
        return max(0.0, idle_s) + self.world.work.between(
            0.01, self.lateness_s[not self.world.is_healed]
        )

    def published(self, message: Outgoing) -> None:
        if self.world.work.trace.is_kept:
            self.world.note(self, f"-> {message.topic.name}")
        self.world.ledger.published(self, message)

    def fsync(self, path: Path) -> None:
        if self.connection.is_full:
            raise full_disk()
        self.effect("fsync")
        self.files.fsync(path)

    # -- what each program is ------------------------------------------------------------------

    def _build(self) -> None:
        raise NotImplementedError

    def _farewell(self, session: str) -> Outgoing | None:
        raise NotImplementedError

    def _folders(self) -> tuple[Path, ...]:
        return ()

    def _boot(self) -> int:
        self.fence = Fence.claim(self.connection)
        with transaction(self.connection):
            return next_boot(self.connection, self.clock())

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.world.work.rng.getrandbits(63))

    def _session(
        self, broker: SimulatedBroker, name: str, client_id: str, filters: tuple[str, ...]
    ) -> SimulatedSession:
        session = SimulatedSession(broker, self, name, client_id, filters)
        session.spoken = partial(spoken, is_newer=self.is_newer)
        return session

    def _serve(self, handler: Any, sessions: dict[str, SimulatedSession]) -> None:
        self.handler, self.sessions = handler, sessions
        self.loop = ServiceLoop(
            self.connection,
            self.queue,  # type: ignore[arg-type]
            sessions,
            handler,
            self.clock,
            pause=lambda _: None,
            fence=self.fence,
        )
        self.loop._log_failure = self.world.handler_failed
        # When a turn comes, and so a tick, is planned in the clockwork.
        self.loop._wait_s = _no_wait
        self.loop._tick_due_s = _now


class CentralProgram(Program):
    """Central with its worker: a job at a time, some while later."""

    lateness_s = (12.0, 5.0)

    def __init__(self, world: "World") -> None:
        super().__init__(world, "central", CENTRAL_SCHEMA, CENTRAL_VERSION)
        self.modeler = TinyModeler(world.swarm.large)
        self._busy_until_s = 0.0
        self.jobs: Jobs | None = None

    def submit(self, job: Job) -> None:
        """Be the port ``Worker``."""
        if isinstance(job, ExportModel):
            return
        work = self.world.work
        self._busy_until_s = max(self._busy_until_s, work.now_s) + work.between(0.01, 1.0)
        work.after(self._busy_until_s - work.now_s, partial(self._do, job, self.life))

    def _do(self, job: Job, life: int) -> None:
        if life == self.life and self.is_running:
            self.run(partial(self._work, job))
            self.wake(0.001)

    def _work(self, job: Job) -> None:
        assert self.jobs is not None
        try:
            event = self.jobs.work(job)
        except Exception as error:  # noqa: BLE001 - as the real worker's thread does
            if is_storage_failure(error):
                self.queue.put(JobDelayed(_task_of(job), str(error)))
                self.submit(job)
                return
            event = JobFailed(job, f"{type(error).__name__}: {error}")
        if event is not None:
            self.queue.put(event)

    def _build(self) -> None:
        boot = self._boot()
        rng = self._rng()
        self._busy_until_s = 0.0
        objects = ObjectStore(self.folder)
        self.jobs = Jobs(
            self.world.reader_of(self),
            objects,
            self.modeler,
            self.modeler,
            {},
            self.folder / "models",
        )
        self.desk = Desk(
            store=SqliteStore(self.connection),
            objects=objects,
            catalog=InstalledCatalog(self.modeler, {}),
            frames=FrameWriter("central", boot, rng, self.clock),
            puller=Puller(objects),
            rng=rng,
            min_clients=2,
            boot=boot,
            read_layout=lambda path: read_model(path)[0],
            parked=Parking(self.connection).summary,
        )
        handler = Orchestrator(self.desk, self, keep_task_s=1e9, was_clean=self.fence.was_clean)
        session = self._session(
            self.world.broker_of(None), "main", "fedfleet-central", central_filters()
        )
        session.will = state_message("offline", boot, self.clock())
        self.frames = self.desk.frames
        self._serve(handler, {"main": session})

    def _exchange(self, restored: SimulatedConnection, backup: Backup) -> None:
        lost = newest_epoch(self.connection)
        super()._exchange(restored, backup)
        mark_restored(restored, backup.at_s, EPOCH_S + self.world.work.now_s, above_epoch=lost)

    def _farewell(self, session: str) -> Outgoing:
        return state_message("offline", self.desk.boot, self.clock())

    def _folders(self) -> tuple[Path, ...]:
        return (self.folder / "objects", self.folder / "parts")


class GatewayProgram(Program):
    """The gateway of one region."""

    def __init__(self, world: "World", region: str) -> None:
        super().__init__(world, gateway_source(region), GATEWAY_SCHEMA, GATEWAY_VERSION)
        self.region = region
        self.parts: Any = None

    def _build(self) -> None:
        settings = _gateway_settings(self.region, self.folder)
        boot = self._boot()
        rng = self._rng()
        self.frames = FrameWriter(gateway_source(self.region), boot, rng, self.clock)
        self.parts = gateway_app.compose(settings, self.connection, self.frames, rng)
        up = self._session(
            self.world.broker_of(None),
            "uplink",
            f"fedfleet-gw-{self.region}-up",
            uplink_filters(self.region),
        )
        up.will = self.parts.devices.farewell("lost")
        down = self._session(
            self.world.broker_of(self.region),
            "downlink",
            f"fedfleet-gw-{self.region}-down",
            downlink_filters(self.region),
        )
        self.parts.on_boot.append(partial(self._renew_will, up))
        self._serve(Gateway(self.parts), {"uplink": up, "downlink": down})

    def _renew_will(self, session: SimulatedSession) -> None:
        session.will = self.parts.devices.farewell("lost")

    def _farewell(self, session: str) -> Outgoing | None:
        return self.parts.devices.farewell("stopped") if session == "uplink" else None

    def _folders(self) -> tuple[Path, ...]:
        return tuple(
            self.folder / kind / part
            for kind in ("custody", "models")
            for part in ("objects", "parts")
        )


class DeviceProgram(Program):
    """A device agent; its training takes some while."""

    def __init__(self, world: "World", name: str, region: str) -> None:
        super().__init__(world, name, device_schema(), DEVICE_VERSION)
        self.region = region
        self.dataset = dataset_of(name)
        self.is_warm = False
        self.job_run: JobRun | None = None
        self._in_hand: Work | None = None
        self._order = 0

    def assign(self, work: Work | None) -> None:
        """Be the port ``Worker``."""
        if work is not None and self._in_hand is not None and work.key == self._in_hand.key:
            return
        self._in_hand = work
        self._order += 1
        if work is not None:
            takes_s = self.world.work.between(0.02, 0.1 if self.world.is_healed else 8.0)
            self.world.work.after(takes_s, partial(self._train, work, self._order, self.life))

    def _train(self, work: Work, order: int, life: int) -> None:
        if life == self.life and order == self._order and self.is_running:
            self.run(partial(self._do, work))
            self.wake(0.001)

    def _do(self, work: Work) -> None:
        assert self.job_run is not None
        try:
            update = self.job_run.run(work, lambda _: None, lambda: False)
        except JobError as error:
            self.queue.put(TrainingFailed(work.key, error.cause))
        except Exception as error:  # noqa: BLE001 - as the real worker's thread does
            reason = f"{type(error).__name__}: {error}"
            self.queue.put(TrainingFailed(work.key, Refusal("training", reason)))
        else:
            update = self.world.ledger.trained(self, work, update)
            self.queue.put(TrainingFinished(work.key, update))

    def _build(self) -> None:
        settings = _device_settings(self.region, self.name, self.folder)
        objects = ObjectStore(self.folder)
        self._in_hand = None
        trainer = TinyTrainer(self.world.ledger)
        data = {self.dataset.name: self.dataset}
        self.fence = Fence.claim(self.connection)
        self.job_run = JobRun(
            self.name, data, objects, lambda _: trainer, self.folder / "parts", lambda: 0.0
        )
        session = self._session(
            self.world.broker_of(self.region),
            "main",
            f"fedfleet-dev-{self.name}",
            device_filters(self.region, self.name),
        )
        device = Device(
            settings, data, LocalPolicy(), self.connection, objects, TinyMachine(), self
        )
        self.agent = device_app.compose(
            device,
            self.clock,
            self._rng(),
            lambda will: setattr(session, "will", will),
            was_clean=self.fence.was_clean,
        )
        self.frames = self.agent._parts.wire.frames
        self._serve(self.agent, {"main": session})

    def _farewell(self, session: str) -> Outgoing:
        return self.agent.farewell()

    def _folders(self) -> tuple[Path, ...]:
        return (self.folder / "objects", self.folder / "parts")


def _no_wait(now_s: float) -> float:
    return 0.0


def _now(now_s: float) -> float:
    return now_s


def _task_of(job: Job) -> str:
    return job.task if isinstance(job.task, str) else job.task.task


@functools.cache
def _gateway_settings(region: str, folder: Path) -> GatewaySettings:
    return GatewaySettings(region=region, state_dir=folder, silent_after_s=600.0)


@functools.cache
def _device_settings(region: str, name: str, folder: Path) -> DeviceSettings:
    return DeviceSettings(region=region, id=name, state_dir=folder, heartbeat_s=200.0)


def empty(folder: Path) -> None:
    """Remove what an earlier world left in a folder; the folders themselves stay."""
    for place, _, names in os.walk(folder):
        for name in names:
            os.unlink(os.path.join(place, name))  # noqa: PTH108, PTH118 - at each of many worlds
