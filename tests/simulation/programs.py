"""The three programs in a simulated world: their real handlers, loops and tables, unchanged."""

import functools
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from device_agent.adapters.model_rebuild import RebuildError
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.store import SCHEMA_VERSION as DEVICE_VERSION
from device_agent.app import Device
from device_agent.core.job import Refusal
from device_agent.core.policy import LocalPolicy
from device_agent.service.ports import RebuildFailed, TrainingFailed, TrainingFinished, Work
from device_agent.settings import DeviceSettings
from regional_gateway import app as gateway_app
from regional_gateway.adapters.store import SCHEMA as GATEWAY_SCHEMA
from regional_gateway.adapters.store import SCHEMA_VERSION as GATEWAY_VERSION
from regional_gateway.service import devices as gateway_devices
from regional_gateway.service.gateway import Gateway
from regional_gateway.service.links import gateway_source
from regional_gateway.settings import GatewaySettings
from schemas.limits import MIB
from schemas.topics import central_filters, device_filters, downlink_filters, uplink_filters
from tests.simulation.disk import (
    SimulatedConnection,
)
from tests.simulation.network import SimulatedSession
from tests.simulation.program import EPOCH_S, Backup, Program
from tests.simulation.tiny import TinyMachine, TinyModeler, TinyTrainer, dataset_of
from transport.database import is_storage_failure
from transport.events import Outgoing
from transport.fence import Fence
from transport.frames import FrameWriter
from transport.objects import ObjectStore
from transport.outbox import OUTBOX_SCHEMA
from transport.parking import Parking
from transport.puller import Puller

if TYPE_CHECKING:
    from tests.simulation.world import World

#: When the simulated world begins, unix seconds: 2001, so that no real file looks old in it.
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


class CentralProgram(Program):
    """Central with its worker: a job at a time, some while later."""

    lateness_s = (20.0, 8.0)

    def __init__(self, world: "World") -> None:
        super().__init__(world, "central", CENTRAL_SCHEMA, CENTRAL_VERSION)
        self.modeler = TinyModeler(world.swarm.large, world.swarm.graphs)
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
        known = self._in_hand
        if work and known and (work.key, work.start) == (known.key, known.start):
            return
        self._in_hand = work
        self._order += 1
        if work is not None:
            takes_s = self.world.work.between(0.02, 0.1 if self.world.is_healed else 5.0)
            self.world.work.after(takes_s, partial(self._train, work, self._order, self.life))

    def _train(self, work: Work, order: int, life: int) -> None:
        if life == self.life and order == self._order and self.is_running:
            self.run(partial(self._do, work))
            self.wake(0.001)

    def _do(self, work: Work) -> None:
        assert self.job_run is not None
        try:
            update = self.job_run.run(work, lambda _: None, lambda: False)
        except RebuildError as error:
            self.queue.put(RebuildFailed(work.key, str(error)))
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
        trainer = TinyTrainer(self.world.ledger, self.world.backend)
        data = {self.dataset.name: self.dataset}
        self.fence = Fence.claim(self.connection)
        self.job_run = JobRun(
            self.name,
            data,
            objects,
            lambda *_: trainer,
            self.folder / "parts",
            OptimizerStates(self.folder / "optimizer", MIB),
            lambda: 0.0,
        )
        session = self._session(
            self.world.broker_of(self.region),
            "main",
            f"fedfleet-dev-{self.name}",
            device_filters(self.region, self.name),
        )
        device = Device(
            settings,
            data,
            LocalPolicy(),
            self.connection,
            objects,
            TinyMachine(self.world.backend),
            self,
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


def _task_of(job: Job) -> str:
    return job.task if isinstance(job.task, str) else job.task.task


@functools.cache
def _gateway_settings(region: str, folder: Path) -> GatewaySettings:
    return GatewaySettings(region=region, state_dir=folder, silent_after_s=600.0)


@functools.cache
def _device_settings(region: str, name: str, folder: Path) -> DeviceSettings:
    return DeviceSettings(region=region, id=name, state_dir=folder, heartbeat_s=100.0)
