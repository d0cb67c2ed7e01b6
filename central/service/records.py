"""What central keeps, as values: one dataclass a table."""

from dataclasses import dataclass, field

from pydantic import Field

from central.core.rounds import RoundState
from central.core.tasks import TaskProgress
from schemas.base import WireMessage
from schemas.ids import Sha256
from schemas.messages import DataDescription, DeviceState, GatewayState, LazyTerms
from schemas.tasks import Parameter, RoundSummary, TaskSubmission


class ResolvedPlan(WireMessage):
    """What the first round fixed for all that follow: the data's form and the model's layout."""

    data: DataDescription
    parameters: int = Field(ge=1)
    layout_sha256: Sha256
    model_bytes: int = Field(ge=1)
    graph_sha256: Sha256 | None = None
    graph_bytes: int = Field(default=0, ge=0)
    #: Of the forward graph; none in a task that an older central began.
    forward_key: Sha256 | None = None


class Totals(WireMessage):
    """Counts over all rounds of a task; bytes are those of encoded updates and models."""

    updates_accepted: int = 0
    late: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    uplink_wire_bytes: int = 0
    downlink_wire_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task."""

    task: str
    submission: TaskSubmission
    min_clients: int
    created_s: float
    progress: TaskProgress
    ended_s: float | None = None
    plan: ResolvedPlan | None = None
    model_sha256: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    #: What a lazy task's next round is told, committed with the round before it.
    lazy: LazyTerms | None = None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of a task."""

    task: str
    state: RoundState
    base_model_sha256: str
    base_model_bytes: int
    opened_s: float
    ended_s: float | None = None
    #: The frozen list, in the order of aggregation, once the round has closed.
    contributors: tuple[str, ...] | None = None
    model_sha256: str | None = None
    summary: RoundSummary | None = None
    #: What leads devices from the base to the model; none: the model was sent whole.
    delta_sha256: str | None = None
    delta_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContributionRecord:
    """One accepted update; ``payload`` is None when it is a file named by its digest."""

    task: str
    round: int
    device: str
    region: str
    xfer: str
    sha256: str
    size: int
    num_examples: int
    accepted_s: float
    payload: bytes | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    settled: str | None = None
    reason: str | None = None
    #: What its device sent and received for it, in whole MQTT packets.
    uplink_wire_bytes: int = 0
    downlink_wire_bytes: int = 0
    #: What it is encoded with, where its device has picked that; None: as its task says.
    codec: str | None = None
    codec_params: dict[str, Parameter] = field(default_factory=dict)
    #: The device's round that it builds on, where the task keeps a memory.
    reference: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A final no to one transfer."""

    xfer: str
    task: str
    round: int
    device: str
    status: str
    code: str | None
    detail: str | None
    at_s: float


@dataclass(frozen=True, slots=True)
class RestoreRecord:
    """One restore of central's database: when, from the backup of when, and its number."""

    at_s: float
    backup_s: float
    epoch: int


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One device, as it last described itself."""

    device: str
    region: str
    boot: int
    seq: int
    is_online: bool
    state: DeviceState
    changed_s: float


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """One gateway, as it last described itself."""

    region: str
    boot: int
    seq: int
    is_online: bool
    state: GatewayState
    changed_s: float
