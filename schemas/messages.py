"""One frozen model per message that programs exchange in frames.

``TYPE`` is the frame header's ``type``. Bodies name their units; sizes are checked here, before
anything is allocated for them. What is only a part of messages, and the assignment, are in files
beside this one; they are known by this module's name all the same.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.assignments import (
    Assignment,
    LazyTerms,
    Memory,
    ModelDelta,
    Settlement,
    TrainingPlan,
    cut_tail,
)
from schemas.base import WireMessage, without_unknown
from schemas.ids import DeviceId, Sha256, TaskId, TransferId
from schemas.limits import DEFAULT_CREDITS, MAX_COHORT, MAX_WANT
from schemas.objects import ByteCount, ChunkIndex, ObjectManifest, RoundNumber, Text
from schemas.profiles import Limits, Precision
from schemas.tasks import Name, Parameter

__all__ = [
    "BY_TYPE",
    "FRAMED",
    "Assignment",
    "Capabilities",
    "ControlNote",
    "DataDescription",
    "DeviceState",
    "GatewayState",
    "Get",
    "Heartbeat",
    "JobPhase",
    "JobRef",
    "JobStatus",
    "LazyTerms",
    "Memory",
    "ModelDelta",
    "Need",
    "Next",
    "NoJob",
    "ObjectManifest",
    "Precision",
    "Receipt",
    "ReceiptStatus",
    "Settlement",
    "TrainingPlan",
    "UpdateManifest",
    "cut_tail",
]


class DataDescription(WireMessage):
    """One data source of a device; examples themselves never leave it."""

    name: Name
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = Field(max_length=8)
    dtype: Literal["float32"] = "float32"
    classes: int = Field(ge=1, le=1 << 20)
    examples: int = Field(ge=0)

    @property
    def key(self) -> tuple[str, tuple[int, ...], str, int]:
        """What two devices must share to train one model: all but the number of examples."""
        return (self.name, self.shape, self.dtype, self.classes)


class Capabilities(WireMessage):
    """What a device can carry."""

    backends: tuple[Name, ...] = Field(default=(), max_length=16)
    memory_bytes: int = Field(default=0, ge=0)
    cores: int = Field(default=1, ge=1)
    accelerator: Name | None = None
    battery_percent: int | None = Field(default=None, ge=0, le=100)
    #: What the onnx backend computes on, best first, and in; why not as its owner asked.
    providers: tuple[Name, ...] = Field(default=(), max_length=8)
    fallback: Text | None = None
    precision: Precision = "float32"
    #: The stricter ones of its owner's and its profile's, which it keeps by itself.
    limits: Annotated[Limits, without_unknown(Limits)] = Limits()


class DeviceState(WireMessage):
    """Birth or death of a device, retained; the Will is a death with the birth's boot."""

    TYPE: ClassVar[str] = "device.state"
    status: Literal["online", "offline"]
    boot: int = Field(ge=0)
    why: Text | None = None
    profile: Name = "generic"
    capabilities: Capabilities = Capabilities()
    data: tuple[DataDescription, ...] = Field(default=(), max_length=32)
    versions: dict[str, str] = Field(default_factory=dict, max_length=16)
    parked: int = Field(default=0, ge=0, description="messages that it could not handle")


class Heartbeat(WireMessage):
    """A sign of life, QoS 0, every 30 s +-20 %."""

    TYPE: ClassVar[str] = "device.heartbeat"
    load: float = Field(ge=0)
    memory_free_bytes: int = Field(ge=0)
    temperature_c: float | None = None


class GatewayState(WireMessage):
    """Birth or death of a gateway, retained, with the counts of its region."""

    TYPE: ClassVar[str] = "gateway.state"
    status: Literal["online", "offline"]
    boot: int = Field(ge=0)
    why: Text | None = None
    devices_known: int = Field(default=0, ge=0)
    devices_online: int = Field(default=0, ge=0)
    #: Devices that missed three heartbeats and had no Will.
    silent: tuple[DeviceId, ...] = Field(default=(), max_length=MAX_COHORT)
    versions: dict[str, str] = Field(default_factory=dict, max_length=16)
    parked: int = Field(default=0, ge=0, description="messages that it could not handle")


class JobRef(WireMessage):
    """One round of one task."""

    task: TaskId
    round: RoundNumber


class NoJob(WireMessage):
    """The answer to ``next`` when there is nothing new; its ``corr`` is the question's id.

    ``keep`` are those of the jobs held that are still wanted; the others have ended.
    """

    TYPE: ClassVar[str] = "task.none"
    keep: tuple[JobRef, ...] = Field(default=(), max_length=64)
    settled: tuple[Settlement, ...] = Field(default=(), max_length=8)


class Next(WireMessage):
    """What is my current job? Asked on every connect and every 5 minutes; it heals a lost push.

    ``unsettled`` are jobs that were delivered, and of which it is not known whether they counted:
    who was away has missed the assignments that told it.
    """

    TYPE: ClassVar[str] = "task.next"
    holding: tuple[JobRef, ...] = Field(default=(), max_length=64)
    unsettled: tuple[JobRef, ...] = Field(default=(), max_length=8)


JobPhase = Literal[
    "accepted", "rejected", "downloading", "training", "uploading", "done", "failed"
]


class JobStatus(WireMessage):
    """How far one device is with one round."""

    TYPE: ClassVar[str] = "job.status"
    task: TaskId
    round: RoundNumber
    state: JobPhase
    #: Stable cause of ``rejected`` and ``failed``: policy, memory, busy, data, model, training...
    code: Name | None = None
    reason: Text | None = None
    progress: float | None = Field(default=None, ge=0, le=1)


class UpdateManifest(WireMessage):
    """One update that a device offers; the frame's tail belongs to ``object``."""

    TYPE: ClassVar[str] = "update.manifest"
    xfer: TransferId
    task: TaskId
    round: RoundNumber
    device: DeviceId
    object: ObjectManifest
    codec: Name
    #: Of the codec that a device has picked; empty: those of the plan.
    codec_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=32)
    #: None: that of the base model, whose digest covers names and shapes.
    layout_sha256: Sha256 | None = None
    base_model_sha256: Sha256
    num_examples: int = Field(ge=1, le=1 << 40, description="examples trained on, not batches")
    metrics: dict[Name, float] = Field(default_factory=dict, max_length=32)
    train_s: float = Field(default=0.0, ge=0)
    #: Sent and received on the device's session for its jobs since its boot began, before this.
    wire_bytes: tuple[ByteCount, ByteCount] | None = None
    #: The round of this device that it builds on; 0: on none, it begins anew.
    reference: RoundNumber = 0
    #: In a round with an uplink budget, see ``schemas.bids``; nothing is pulled before a need.
    bid: str | None = Field(default=None, pattern=r"^[0-9a-f]{16}\z")


class Need(WireMessage):
    """The receiver's pull: send these chunks."""

    TYPE: ClassVar[str] = "transfer.need"
    xfer: TransferId
    want: tuple[ChunkIndex, ...] = Field(min_length=1, max_length=MAX_WANT)
    credit: int = Field(default=DEFAULT_CREDITS, ge=1, le=MAX_WANT)


ReceiptStatus = Literal["held", "accepted", "duplicate", "late", "rejected"]


class Receipt(WireMessage):
    """The receiver's word on one transfer. A PUBACK proves nothing; this does.

    ``held``: a gateway has it on disk and forwards it. ``accepted``, ``duplicate``, ``late`` and
    ``rejected`` are final, and the sender may forget the object, unless ``retry_after_s`` is set.
    """

    TYPE: ClassVar[str] = "transfer.receipt"
    xfer: TransferId
    status: ReceiptStatus
    sha256: Sha256
    code: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{1,31}\z")
    detail: Text | None = None
    retry_after_s: float | None = Field(default=None, ge=0, le=86_400)

    @property
    def is_final(self) -> bool:
        """Whether the sender may forget the object."""
        return self.status != "held" and self.retry_after_s is None

    @property
    def is_over_budget(self) -> bool:
        """Whether the update was in time and in order, and its bid was not granted."""
        return self.status == "late" and self.code == "E_BUDGET"


class Get(WireMessage):
    """Repair of a download: send these chunks of this object."""

    TYPE: ClassVar[str] = "transfer.get"
    sha256: Sha256
    want: tuple[ChunkIndex, ...] = Field(min_length=1, max_length=MAX_WANT)


class ControlNote(WireMessage):
    """From above, at once: publish your birth again, drop a task, or stop taking work.

    ``boot`` is the newest boot that the receiver has seen of this sender; it adopts a larger one.
    """

    TYPE: ClassVar[str] = "node.control"
    action: Literal["rebirth", "cancel", "drain"]
    task: TaskId | None = None
    boot: int | None = Field(default=None, ge=0)


FRAMED: tuple[type[WireMessage], ...] = (
    DeviceState,
    Heartbeat,
    GatewayState,
    Assignment,
    NoJob,
    Next,
    JobStatus,
    UpdateManifest,
    Need,
    Receipt,
    Get,
    ControlNote,
)
#: Which model reads which frame type.
BY_TYPE: dict[str, type[WireMessage]] = {model.TYPE: model for model in FRAMED}  # type: ignore[attr-defined]
