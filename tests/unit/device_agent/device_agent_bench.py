"""A device agent on a bench: no threads, no sockets, a clock that stands still until it is moved.

What the gateway and central would send is written by hand; what the device sends is kept.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device_agent.adapters.job_run import JobError, JobRun
from device_agent.adapters.model_rebuild import RebuildError
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.store import SqliteJobStore, open_store
from device_agent.app import Device, compose
from device_agent.core.job import JobKey, Refusal
from device_agent.core.policy import LocalPolicy
from device_agent.service.ports import (
    RebuildFailed,
    Trainer,
    TrainingError,
    TrainingFailed,
    TrainingFinished,
    TrainingRequest,
    TrainingResult,
    Vitals,
    Work,
    WorkerEvent,
)
from device_agent.service.statuses import PACE_S
from device_agent.settings import DeviceSettings
from device_agent.training.drill import DrillTrainer
from learning.data.dataset import Dataset
from schemas.base import WireMessage
from schemas.envelope import decode_frame
from schemas.limits import MIB
from schemas.messages import (
    Assignment,
    Capabilities,
    JobStatus,
    ObjectManifest,
    Receipt,
    TrainingPlan,
    UpdateManifest,
)
from schemas.tasks import Training
from schemas.topics import Address, Kind, Topic
from transport.database import transaction
from transport.events import Connected, Disconnected, MessageArrived, Outgoing
from transport.frames import FrameWriter
from transport.objects import ObjectStore, describe
from transport.outbox import Outbox
from updates.layout import Layout
from updates.model_file import encode_model

REGION, DEVICE, TASK = "r1", "d1", "t-1"
OWN = Address(REGION, DEVICE)
EVERYONE = Address.of_everyone(REGION)
START_S = 1_000_000.0
SMALL = Layout.of({"w": (4, 3), "b": (3,)})
#: As float32 larger than what rides inline.
LARGE = Layout.of({"w": (100_000,)})
CLASSES = 3


class NoiseTrainer:
    """Gives an update that depends only on the request, as a real trainer must."""

    backend = "noise"

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.factor = np.float32(0.1)

    def train(self, request: TrainingRequest, progress, should_stop) -> TrainingResult:
        if self.fault is not None:
            raise self.fault
        rng = np.random.default_rng(request.round_seed)
        noise = rng.standard_normal(request.layout.size, dtype=np.float32)
        delta = noise * self.factor + request.parameters * np.float32(0.01)
        return TrainingResult(delta, len(request.data), {"loss": 0.5, "odd": float("nan")})


class FakeMachine:
    def __init__(self) -> None:
        self.free_bytes = 1024 * MIB
        self.backends: tuple[str, ...] = ("noise",)
        self.battery_percent: int | None = None
        self.is_plugged = False

    def capabilities(self) -> Capabilities:
        return Capabilities(backends=self.backends, memory_bytes=2048 * MIB, cores=1)

    def memory_free_bytes(self) -> int:
        return self.free_bytes

    def vitals(self) -> Vitals:
        return Vitals(0.5, self.free_bytes, 40.0, self.battery_percent, self.is_plugged)


class BenchWorker:
    """Trains when it is told to, on the caller's thread."""

    is_warm = False

    def __init__(self) -> None:
        self.run: JobRun | None = None
        self.work: Work | None = None
        self.begun: list[JobKey] = []

    def assign(self, work: Work | None) -> None:
        is_same = self.work and work and (work.key, work.start) == (self.work.key, self.work.start)
        if work is not None and not is_same:
            self.begun.append(work.key)
            self.work = work
        elif work is None:
            self.work = None

    def result(self) -> WorkerEvent:
        assert self.run is not None
        assert self.work is not None
        try:
            update = self.run.run(self.work, lambda _: None, lambda: False)
        except RebuildError as error:
            return RebuildFailed(self.work.key, str(error))
        except JobError as error:
            return TrainingFailed(self.work.key, error.cause)
        except TrainingError as error:
            return TrainingFailed(self.work.key, Refusal("training", str(error)))
        return TrainingFinished(self.work.key, update)


def dataset(examples: int = 20) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((examples, 4), dtype=np.float32)
    return Dataset(x, rng.integers(0, CLASSES, examples), CLASSES, "digits")


def model_file(layout: Layout, seed: int = 1) -> bytes:
    vector = np.random.default_rng(seed).standard_normal(layout.size, dtype=np.float32)
    return encode_model(layout, vector)


def plan_for(layout: Layout, codec: str = "raw-f32", **training) -> TrainingPlan:
    return TrainingPlan(
        model="mlp",
        input_shape=(4,),
        classes=CLASSES,
        parameters=layout.size,
        layout_sha256=layout.digest,
        data="digits",
        training=Training(**training),
        codec=codec,
    )


def manifest_of(model: bytes) -> tuple[ObjectManifest, bytes]:
    """Return a manifest and its tail: inline when the model is small."""
    manifest, digests = describe(model)
    if manifest.size <= 256 * 1024:
        return manifest.model_copy(update={"inline": True}), model
    return manifest, digests


@dataclass
class Bench:
    """One life of a device on a directory; ``reborn`` gives the next one."""

    path: Path
    policy: LocalPolicy = field(default_factory=LocalPolicy)
    now_s: float = START_S
    connect: bool = True
    outbox_quota_bytes: int = 512 * MIB
    #: Why no update may be sent on the link; None: it may.
    held: str | None = None

    def __post_init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.wills: list[Outgoing] = []
        self.acked = 0
        self.trainer = NoiseTrainer()
        self.machine = FakeMachine()
        self.worker = BenchWorker()
        self.objects = ObjectStore(self.path)
        self.connection = open_store(self.path / "device.db")
        self.store = SqliteJobStore(self.connection)
        self.outbox = Outbox(self.connection)
        settings = DeviceSettings(
            region=REGION,
            id=DEVICE,
            state_dir=self.path,
            outbox_quota_bytes=self.outbox_quota_bytes,
        )
        data = {"digits": dataset()}
        scratch = self.path / "parts"
        states = OptimizerStates(self.path / "optimizer", MIB)
        self.worker.run = JobRun(
            DEVICE, data, self.objects, self._trainer, scratch, states, lambda: 0.0
        )
        device = Device(
            settings,
            data,
            self.policy,
            self.connection,
            self.objects,
            self.machine,
            self.worker,
            why_not_now=lambda: self.held,
        )
        rng = np.random.default_rng(7)
        self.agent = compose(device, lambda: self.now_s, rng, self.wills.append)
        self.gateway = FrameWriter(f"gw/{REGION}", 1, np.random.default_rng(8), lambda: self.now_s)
        self.central = FrameWriter("central", 1, np.random.default_rng(9), lambda: self.now_s)
        if self.connect:
            self.give(Connected("main"))

    def _trainer(self, plan: TrainingPlan, backend: str) -> Trainer:
        return DrillTrainer() if plan.training.is_drill else self.trainer

    def reborn(self, **changes) -> "Bench":
        """Return the next life, as after a SIGKILL: nothing in memory survives."""
        self.connection.close()
        kept = {"now_s": self.now_s + 1.0, "outbox_quota_bytes": self.outbox_quota_bytes}
        return Bench(self.path, self.policy, **(kept | changes))

    def give(self, event: object) -> list[Outgoing]:
        """Handle one event as the loop does, with what is due a moment later; keep what is sent.

        Events are far enough from each other for each word on a job to be told.
        """
        with transaction(self.connection):
            sent = list(self.agent.handle(event, self.now_s))
        self.agent.after_commit()
        self.now_s += PACE_S
        with transaction(self.connection):
            due_s = self.agent.next_due_s(self.now_s)
            if due_s is not None and due_s <= self.now_s:
                sent += self.agent.tick(self.now_s)
        self.agent.after_commit()
        self.sent += sent
        return sent

    def undone(self, event: object) -> None:
        """Handle one event in a turn whose commit fails."""
        self.connection.execute("BEGIN")
        list(self.agent.handle(event, self.now_s))
        self.connection.execute("ROLLBACK")

    def lose_connection(self) -> None:
        self.give(Disconnected("main", "test"))

    def wait(self, seconds: float) -> list[Outgoing]:
        """Let time pass; tick as often as the agent asks for."""
        sent: list[Outgoing] = []
        until_s = self.now_s + seconds
        while True:
            due_s = self.agent.next_due_s(self.now_s)
            if due_s is None or due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            with transaction(self.connection):
                sent += self.agent.tick(self.now_s)
            self.agent.after_commit()
        self.now_s = until_s
        self.sent += sent
        return sent

    def arrive(self, topic: Topic, payload: bytes) -> list[Outgoing]:
        return self.give(MessageArrived("main", topic.name, payload, False, lambda: None))

    def send(  # noqa: PLR0913 - each names one part of a message
        self,
        kind: Kind,
        body: WireMessage,
        *,
        writer: FrameWriter | None = None,
        address: Address = OWN,
        tail: bytes = b"",
        corr: str | None = None,
        xfer: str | None = None,
    ) -> list[Outgoing]:
        frame = (writer or self.gateway).frame(body, tail=tail, corr=corr)
        return self.arrive(Topic(kind, address, xfer=xfer), frame)

    def assignment(
        self, model: bytes, plan: TrainingPlan, number: int = 1, task: str = TASK, **changes
    ) -> tuple[Assignment, bytes]:
        manifest, tail = manifest_of(model)
        values = {
            "task": task,
            "round": number,
            "region": REGION,
            "cohort": (DEVICE, "d2"),
            "deadline": self.now_s + 600,
            "plan": plan,
            "model": manifest,
        }
        return Assignment(**(values | changes)), tail

    def assign(
        self,
        layout: Layout = SMALL,
        number: int = 1,
        task: str = TASK,
        *,
        address: Address = OWN,
        seed: int = 1,
        **training,
    ) -> list[Outgoing]:
        """Send an assignment as central made it."""
        plan = plan_for(layout, **training)
        body, tail = self.assignment(model_file(layout, seed), plan, number, task)
        return self.send(Kind.TASK, body, writer=self.central, address=address, tail=tail)

    def train(self) -> list[Outgoing]:
        """Let the training thread finish what it has in hand."""
        return self.give(self.worker.result())

    def block(self, model: bytes, k: int, address: Address = OWN) -> list[Outgoing]:
        manifest, _ = describe(model)
        data = model[k * manifest.chunk_bytes : (k + 1) * manifest.chunk_bytes]
        return self.arrive(Topic(Kind.BLOCK, address, sha16=manifest.sha256[:16], k=k), data)

    def receipt(self, manifest: UpdateManifest, status: str, **values) -> list[Outgoing]:
        values.setdefault("sha256", manifest.object.sha256)
        body = Receipt(xfer=manifest.xfer, status=status, **values)
        return self.send(Kind.RECEIPT, body, xfer=manifest.xfer)

    def state(self, number: int = 1, task: str = TASK) -> str:
        record = self.store.get(JobKey(task, number))
        assert record is not None
        return record.job.state.value


def of_kind(sent: list[Outgoing], kind: Kind) -> list[Outgoing]:
    return [message for message in sent if message.topic.kind is kind]


def statuses(sent: list[Outgoing]) -> list[JobStatus]:
    return [body_of(message, JobStatus) for message in of_kind(sent, Kind.JOB_STATUS)]


def states(sent: list[Outgoing]) -> list[str]:
    return [status.state for status in statuses(sent)]


def body_of(message: Outgoing, model: type) -> WireMessage:
    return decode_frame(message.payload).body(model)


def offered(sent: list[Outgoing]) -> tuple[UpdateManifest, bytes]:
    """Return the one manifest among what was sent, and its tail."""
    (message,) = of_kind(sent, Kind.MANIFEST)
    frame = decode_frame(message.payload)
    return frame.body(UpdateManifest), frame.tail
