"""The assignment of a round to the devices of one region, with all that it names."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import WireMessage, without_unknown
from schemas.ids import MARK_LENGTH, DeviceId, RegionId, Sha256, TaskId
from schemas.limits import (
    MAX_COHORT,
    MAX_DELTA_TAIL_BYTES,
    MAX_DELTAS,
    MAX_GRAPH_BYTES,
    MAX_INLINE_DELTA_BYTES,
    MAX_OBJECT_BYTES,
)
from schemas.objects import ObjectManifest, RoundNumber, Text
from schemas.tasks import Downlink, Name, Parameter, Privacy, Requirements, Training

#: What a device keeps from one of its rounds to the next: nothing, what the codec left out of its
#: updates, or the vector that both ends hold and that updates are told as differences to.
Memory = Literal["none", "feedback", "lazy"]


class TrainingPlan(WireMessage):
    """All that a client needs to train and to encode its update."""

    model: Name
    model_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=32)
    input_shape: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = Field(max_length=8)
    classes: int = Field(ge=1, le=1 << 20)
    parameters: int = Field(ge=1, le=MAX_OBJECT_BYTES // 4)
    layout_sha256: Sha256
    data: Name
    training: Annotated[Training, without_unknown(Training)] = Training()
    codec: Name
    codec_params: dict[Name, Parameter] = Field(default_factory=dict, max_length=32)
    memory: Memory = "none"
    privacy: Annotated[Privacy, without_unknown(Privacy)] = Privacy()
    requires: Annotated[Requirements, without_unknown(Requirements)] = Requirements()
    #: Whether the round has an uplink budget: an update is never sent inline, and has a ``bid``.
    bids: bool = False
    #: How the assignment's deltas are coded; none: it has no deltas.
    downlink: Annotated[Downlink | None, without_unknown(Downlink)] = None


class Settlement(WireMessage):
    """What became of the updates of one ended round, for the devices of one region."""

    task: TaskId
    round: RoundNumber
    counted: tuple[DeviceId, ...] = Field(default=(), max_length=MAX_COHORT)
    discarded: tuple[DeviceId, ...] = Field(default=(), max_length=MAX_COHORT)
    reason: Text | None = None


class LazyTerms(WireMessage):
    """What a device needs to decide whether its round may be skipped (``updates.lazy``)."""

    threshold: float = Field(ge=0, description="squared norm that a change must exceed")
    examples: int = Field(ge=1, description="of all devices whose updates central holds")
    clients: int | None = Field(
        default=None,
        ge=1,
        description="how many those are, where all count alike; none: by examples",
    )

    def weight(self, num_examples: int) -> float:
        """Return p, a device's share of the aggregate, 0 to 1."""
        return min(1.0, num_examples / self.examples) if self.clients is None else 1 / self.clients


class ModelDelta(WireMessage):
    """One step of a compressed downlink: what makes one model file of the one before it.

    ``object`` is a payload of the plan's ``downlink`` codec: ``base`` plus it is ``result``.
    """

    base: Sha256
    result: Sha256
    object: ObjectManifest


class Assignment(WireMessage):
    """One round's work for one region; devices that are not in ``cohort`` ignore it.

    ``references`` says for each device of ``cohort`` which of its rounds was counted last, 0 for
    none; it is empty where the plan's memory is ``none``. ``marks`` says of each which update that
    was (``schemas.ids.contribution_mark``), 6 digits a device, since one that lost its store may
    have made another. A device builds on what it kept of that update and forgets the others;
    without it, it begins anew.

    ``model`` is the global model as a safetensors file. ``graph`` is the task's training graph,
    the same in every round, for devices that train with it; never inline. ``deltas`` lead, the
    oldest first, from an older model to ``model``; who holds none of their bases pulls ``model``,
    the key frame, which is then not inline. The frame's tail is the model's tail, after it the
    SHA-256 of each of the graph's chunks, and after it each delta's tail.
    """

    TYPE: ClassVar[str] = "task.assign"
    task: TaskId
    round: RoundNumber
    region: RegionId
    cohort: tuple[DeviceId, ...] = Field(min_length=1, max_length=MAX_COHORT)
    deadline: float = Field(ge=0, description="central's clock, unix seconds; for scheduling only")
    plan: TrainingPlan
    model: ObjectManifest
    settled: tuple[Settlement, ...] = Field(default=(), max_length=8)
    graph: ObjectManifest | None = None
    references: tuple[RoundNumber, ...] = Field(default=(), max_length=MAX_COHORT)
    marks: str = Field(default="", pattern=r"^[0-9a-f]*\z", max_length=MARK_LENGTH * MAX_COHORT)
    lazy: LazyTerms | None = None

    def reference(self, device: DeviceId) -> int:
        """Return the round of a device of the cohort that was counted last; 0: none is told."""
        told = dict(zip(self.cohort, self.references, strict=False))
        return told.get(device, 0)

    def mark(self, device: DeviceId) -> str | None:
        """Return the mark of the update that a device of the cohort builds on; None: none told."""
        if not self.marks or device not in self.cohort:
            return None
        start = MARK_LENGTH * self.cohort.index(device)
        return self.marks[start : start + MARK_LENGTH]

    deltas: tuple[ModelDelta, ...] = Field(default=(), max_length=MAX_DELTAS)

    @property
    def objects(self) -> tuple[ObjectManifest, ...]:
        """What the assignment names, in the order of its tail."""
        own = (self.model,) if self.graph is None else (self.model, self.graph)
        return (*own, *(delta.object for delta in self.deltas))

    def fault(self, tail_bytes: int) -> str | None:
        """Return what is wrong with the lists and manifests, or with a tail of so many bytes."""
        if fault := self._fault_of_references():
            return fault
        if self.graph is not None and self.graph.inline:
            return "graph: inline, it must be pulled"
        if self.graph is not None and self.graph.size > MAX_GRAPH_BYTES:
            return f"graph: {self.graph.size} bytes, at most {MAX_GRAPH_BYTES}"
        if fault := self._fault_of_deltas():
            return fault
        if fault := next((fault for one in self.objects if (fault := one.fault())), None):
            return fault
        wanted = sum(one.tail_bytes() for one in self.objects)
        return None if tail_bytes == wanted else f"tail: {tail_bytes} bytes, must be {wanted}"

    def split(self, tail: bytes) -> tuple[bytes, bytes]:
        """Return the model's part of a tail without ``fault``, and the graph's."""
        end = self.model.tail_bytes()
        digests = 0 if self.graph is None else self.graph.tail_bytes()
        return tail[:end], tail[end : end + digests]

    def delta_tails(self, tail: bytes) -> tuple[bytes, ...]:
        """Return each delta's part of a tail without ``fault``."""
        return cut_tail(self.objects, tail)[len(self.objects) - len(self.deltas) :]

    def _fault_of_references(self) -> str | None:
        if self.references and len(self.references) != len(self.cohort):
            return f"references: {len(self.references)}, the cohort has {len(self.cohort)}"
        if self.marks and len(self.marks) != MARK_LENGTH * len(self.references):
            return f"marks: {len(self.marks)} digits, {MARK_LENGTH} for each of the references"
        return None

    def _fault_of_deltas(self) -> str | None:
        if not self.deltas:
            return None
        results = (*(one.base for one in self.deltas[1:]), self.model.sha256)
        if any(one.result != result for one, result in zip(self.deltas, results, strict=True)):
            return "deltas: each must give the base of the next, the last one the model"
        if self.plan.downlink is None:
            return "deltas: the plan has no downlink to read them with"
        if self.model.inline:
            return "model: inline beside deltas, it must be pulled"
        return _size_fault([one.object for one in self.deltas])


def cut_tail(objects: Sequence[ObjectManifest], tail: bytes) -> tuple[bytes, ...]:
    """Return the part of a tail that belongs to each of ``objects``, which follow each other."""
    ends = list(accumulate((one.tail_bytes() for one in objects), initial=0))
    return tuple(tail[start:end] for start, end in pairwise(ends))


def _size_fault(deltas: Sequence[ObjectManifest]) -> str | None:
    *older, newest = deltas
    if any(one.inline for one in older):
        return "deltas: only the newest may be inline"
    if newest.inline and newest.size > MAX_INLINE_DELTA_BYTES:
        return f"deltas: {newest.size} bytes inline, at most {MAX_INLINE_DELTA_BYTES}"
    parts = sum(one.tail_bytes() for one in deltas)
    if parts > MAX_DELTA_TAIL_BYTES:
        return f"deltas: {parts} bytes of the tail, at most {MAX_DELTA_TAIL_BYTES}"
    return None
