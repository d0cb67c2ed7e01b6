"""What a person says of a task, and what central says back: plain JSON for any client."""

import math
import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, model_validator

from schemas.base import PersonMessage, WireMessage, explain
from schemas.errors import FrameError, MessageError
from schemas.ids import RegionId, Sha256, TaskId
from schemas.limits import MAX_SUBMIT_BYTES

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _is_name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        message = (
            "not a name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first; "
            "it is looked up among known names, never a path or a module"
        )
        raise ValueError(message)
    return value


#: A name out of a list of known ones: never a path, never a module.
Name = Annotated[str, AfterValidator(_is_name)]

#: Whole numbers that JSON carries without loss (RFC 8259, section 6).
Whole = Annotated[int, Field(gt=-(1 << 53), lt=1 << 53)]
_SHAPES = {bool: "bool", int: "int", float: "float", str: "str", list: "list", tuple: "list"}


def _shape(value: object) -> str | None:
    return _SHAPES.get(type(value))


#: A setting of a model, a codec or a strategy; each checks its own.
Parameter = Annotated[
    Annotated[bool, Tag("bool")]
    | Annotated[Whole, Tag("int")]
    | Annotated[float, Tag("float")]
    | Annotated[str, Field(max_length=60), Tag("str")]
    | Annotated[tuple[Whole, ...], Field(max_length=16), Tag("list")],
    Discriminator(
        _shape,
        custom_error_type="parameter",
        custom_error_message="use true or false, a number, a text or a list of whole numbers",
    ),
]

PersonT = TypeVar("PersonT", bound=PersonMessage)

#: A shell pattern of parameter names, such as ``features.*``.
NamePattern = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+\z")]

#: Asked for each client that must report, so that some may fail (Bonawitz et al. 2019: 1.3).
OVER_SELECTION = 1.3


class Training(PersonMessage):
    """How each client trains in one round."""

    epochs: int = Field(default=1, ge=0, le=1000, description="0: a drill that trains nothing")
    steps: int | None = Field(default=None, ge=1, le=1_000_000, description="instead of epochs")
    batch_size: int = Field(default=32, ge=1, le=65536)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.05, gt=0, le=100)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="for sgd")
    nesterov: bool = Field(default=False, description="for sgd with momentum")
    weight_decay: float = Field(default=0.0, ge=0, le=100)
    loss: Literal["cross_entropy", "bce", "mse", "huber", "model"] = Field(
        default="cross_entropy", description="model: the graph's own output `loss`"
    )
    #: Not strict: inside of a program's message it is read as a list.
    frozen: tuple[NamePattern, ...] = Field(
        default=(), max_length=32, strict=False, description="parameters that are not trained"
    )
    proximal_mu: float = Field(default=0.0, ge=0, le=1e6, description="FedProx")
    gradient_clip_norm: float | None = Field(default=None, gt=0)
    keep_state: bool = Field(default=False, description="the optimizer's, from round to round")
    seed: int = Field(default=0, ge=0, lt=1 << 53)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Training":
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            message = (
                f"nesterov: it needs optimizer sgd and momentum above 0, "
                f"not {self.optimizer} and {self.momentum:g}"
            )
            raise ValueError(message)
        return self

    @property
    def is_drill(self) -> bool:
        """Whether nothing is trained: every update is zero, only the fleet is exercised."""
        return self.epochs == 0 and self.steps is None


class Requirements(PersonMessage):
    """What a device must have to be selected."""

    memory_mb: int | None = Field(default=None, ge=1, description="memory for the job, MiB")
    backend: Name | None = None
    accelerator: Name | None = None
    battery_percent: int | None = Field(default=None, ge=0, le=100)
    #: Not strict: inside of a program's message it is read as a list.
    profiles: tuple[Name, ...] | None = Field(
        default=None, min_length=1, max_length=32, strict=False, description="one of these"
    )


class Target(PersonMessage):
    """Stop early once a metric of the global model reaches a value."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    value: float

    def is_met(self, metrics: dict[str, float]) -> bool:
        """Tell whether ``metrics`` reach the target: accuracy from below, loss from above."""
        got = metrics.get(self.metric)
        if got is None:
            return False
        return got >= self.value if self.metric == "accuracy" else got <= self.value


class Privacy(PersonMessage):
    """Bounds on what one update may carry."""

    clip_norm: float | None = Field(default=None, gt=0, description="L2 norm of one update")


class Downlink(PersonMessage):
    """How a new global model travels to who holds an older one: as a coded difference."""

    codec: Name
    codec_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=8)


class TaskSubmission(PersonMessage):
    """A task as a person submits it; every field but ``model`` has a default.

    ``min_clients`` and ``cohort`` stay None when they were not given: central knows MIN_CLIENTS.
    """

    model: Name
    model_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=32)
    task: TaskId | None = None
    data: Name | None = None
    rounds: int = Field(default=5, ge=1, le=100_000, description="committed ones")
    min_clients: int | None = Field(default=None, ge=1, le=100_000)
    cohort: int | None = Field(default=None, ge=1, le=100_000)
    deadline_s: float = Field(default=600.0, ge=1, le=604_800)
    selection_timeout_s: float = Field(default=600.0, ge=0, le=604_800)
    on_shortfall: Literal["extend", "abandon"] = "extend"
    regions: tuple[RegionId, ...] | None = Field(default=None, min_length=1, max_length=256)
    requires: Requirements = Requirements()
    training: Training = Training()
    strategy: Name = "fedavg"
    strategy_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=32)
    codec: Name = "int8"
    codec_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=32)
    error_feedback: bool | None = Field(
        default=None,
        description="send next time what the codec left out; None: as the codec needs",
    )
    downlink: Downlink | None = Field(default=None, description="none: whole models")
    selection: Literal["all", "random"] = "random"
    #: A round's budget: what its updates may cost together, and who is served first.
    uplink_budget_bits: int | None = Field(default=None, ge=8, lt=1 << 53)
    budget_max_clock: int = Field(default=10, ge=1, le=0xFFFF, description="then a bid is forced")
    budget_bid_share: float = Field(default=0.5, ge=0, le=1, description="of the deadline")
    scale_exponent: float = Field(default=0.0, ge=0, le=1, description="step by number selected")
    target: Target | None = None
    privacy: Privacy = Privacy()
    seed: int = Field(default=0, ge=0, lt=1 << 53)

    @model_validator(mode="after")
    def _cohort_covers_min_clients(self) -> "TaskSubmission":
        if self.cohort and self.min_clients and self.min_clients > self.cohort:
            message = (
                f"min_clients: {self.min_clients} is above cohort: {self.cohort}; "
                "a round could never end"
            )
            raise ValueError(message)
        return self

    def cohort_size(self, min_clients: int) -> int:
        """Return how many clients are asked in a round that needs ``min_clients``."""
        return self.cohort or math.ceil(min_clients * OVER_SELECTION)


class TaskControl(PersonMessage):
    """What a person may do to a task that runs."""

    action: Literal["cancel", "pause", "resume"]


TaskState = Literal["waiting", "running", "paused", "completed", "failed", "cancelled", "rejected"]
FINAL_STATES: frozenset[TaskState] = frozenset({"completed", "failed", "cancelled", "rejected"})


class RoundSummary(WireMessage):
    """One ended round, as the status lists it."""

    round: int = Field(ge=0)
    outcome: Literal["committed", "abandoned"]
    reason: str | None = None
    clients: int = Field(default=0, ge=0, description="counted in the aggregate")
    late: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    uplink_bytes: int = Field(default=0, ge=0, description="encoded updates, as accepted")
    uplink_wire_bytes: int = Field(default=0, ge=0, description="all that devices sent for it")
    downlink_wire_bytes: int = Field(default=0, ge=0, description="all that they received")
    codecs: dict[str, int] = Field(default_factory=dict, description="updates by codec, with auto")
    #: What is announced to each of the cohort: the model, or the newest delta of a compressed
    #: downlink. Older deltas and key frames that a device asks its gateway for are not in it.
    downlink_bytes: int = Field(default=0, ge=0, description="announced to the cohort")
    metrics: dict[str, float] = Field(default_factory=dict)
    bids: int = Field(default=0, ge=0, description="in a round with an uplink budget")
    granted: int = Field(default=0, ge=0, description="of those bids")


class TaskStatus(WireMessage):
    """What central says of a task, retained; the newest ``history`` of its rounds with it."""

    task: TaskId
    state: TaskState
    reason: str | None = None
    model: str | None = None
    round: int | None = None
    phase: str | None = None
    rounds: int = 0
    committed: int = 0
    abandoned: int = 0
    cohort: int = 0
    reported: int = 0
    min_clients: int = 0
    devices_online: int = 0
    late: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    model_sha256: Sha256 | None = None
    parameters: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    uplink_wire_bytes: int = 0
    downlink_wire_bytes: int = 0
    #: Bytes of the accepted updates as float32, over what they took encoded, and on the wire.
    uplink_ratio: float | None = None
    uplink_wire_ratio: float | None = None
    #: Of the last ended round, in a task whose codec is ``auto``.
    codecs: dict[str, int] = Field(default_factory=dict)
    updates_accepted: int = 0
    history: tuple[RoundSummary, ...] = ()
    ts: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to this task."""
        return self.state in FINAL_STATES


class ParkedNote(WireMessage):
    """A message that central could not handle and has set aside."""

    number: int = Field(ge=0, description="for `fedfleet parked --drop`")
    topic: str = Field(max_length=256)
    error: str = Field(max_length=500)
    tries: int = Field(default=0, ge=0)
    ts: float = Field(default=0.0, ge=0, description="when it was last set aside")


class CentralState(WireMessage):
    """Birth and death of central, retained; devices and gateways wait while it is offline."""

    status: Literal["online", "offline"]
    boot: int = Field(ge=0)
    ts: float = Field(ge=0)
    connection: int = Field(
        default=0, ge=0, description="how often it has connected in this life: hear all again"
    )
    parked: int = Field(default=0, ge=0, description="messages that could not be handled")
    parked_newest: tuple[ParkedNote, ...] = Field(default=(), max_length=16)


def parse_submission(payload: bytes) -> TaskSubmission:
    """Return the task in a person's message.

    Raises:
        FrameError: It is larger than 64 KiB.
        MessageError: It does not fit; the text names each field, its value and the limit.
    """
    return _parse(TaskSubmission, payload)


def parse_control(payload: bytes) -> TaskControl:
    """Return what a person wants done to a task; errors as in ``parse_submission``."""
    return _parse(TaskControl, payload)


def _parse(model: type[PersonT], payload: bytes) -> PersonT:
    if len(payload) > MAX_SUBMIT_BYTES:
        message = f"message: {len(payload)} bytes, at most {MAX_SUBMIT_BYTES} are allowed"
        raise FrameError(message)
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        raise MessageError(explain(error, _known(model))) from error


def _known(model: type[PersonMessage]) -> tuple[str, ...]:
    nested: tuple[type[PersonMessage], ...] = (Training, Requirements, Target, Privacy, Downlink)
    return tuple(name for part in (model, *nested) for name in part.model_fields)
