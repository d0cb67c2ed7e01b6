"""What the gateway's use cases need from outside: rows that survive a crash."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from regional_gateway.core.answers import Key
from regional_gateway.core.roster import Presence
from schemas.messages import ModelDelta, ObjectManifest, Settlement


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """One current assignment, without its frame.

    Attributes:
        task: Task id.
        round_number: Round of the task.
        cohort: The devices that it asks.
        deadline_s: Central's clock, unix seconds; never compared with this machine's.
        model: The global model's manifest.
        received_s: When it first came; orders the assignments.
        graph: The training graph's manifest, where the task has one.
        deltas: What leads devices from older models to this one, the oldest first.
    """

    task: str
    round_number: int
    cohort: tuple[str, ...]
    deadline_s: float
    model: ObjectManifest
    received_s: float
    graph: ObjectManifest | None = None
    deltas: tuple[ModelDelta, ...] = ()

    @property
    def key(self) -> Key:
        """Task and round."""
        return (self.task, self.round_number)

    @property
    def objects(self) -> tuple[ObjectManifest, ...]:
        """What devices may ask for, in the order of the tail of its frame."""
        own = (self.model,) if self.graph is None else (self.model, self.graph)
        return (*own, *(delta.object for delta in self.deltas))

    @property
    def eager(self) -> tuple[ObjectManifest, ...]:
        """What every device is expected to need: of a chain of deltas the newest alone."""
        first = self.deltas[-1].object if self.deltas else self.model
        return (first,) if self.graph is None else (first, self.graph)


@dataclass(frozen=True, slots=True)
class StatusRow:
    """The newest status of one device for one round, with the frame as it came.

    Attributes:
        device: Device id.
        key: Task and round.
        order: Boot and seq of the frame.
        state: The job's phase.
        frame: The device's frame, untouched.
    """

    device: str
    key: Key
    order: tuple[int, int]
    state: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class FinalReceipt:
    """Central's last word on one transfer: whose it is, and the frame as it came."""

    xfer: str
    device: str
    frame: bytes


class DeviceStore(Protocol):
    """The newest state of every device of the region."""

    def presence(self, device: str) -> Presence | None:
        """Return what is known of a device, or None; its ``seen_s`` is when its state came."""

    def presences(self) -> list[Presence]:
        """Return what is known of every device."""

    def save_device(self, presence: Presence, frame: bytes) -> None:
        """Keep a device's newest state with its frame as it came."""

    def device_frame(self, device: str) -> bytes | None:
        """Return the frame of a device's newest state, or None."""

    def device_ids(self) -> list[str]:
        """Return the id of every known device, sorted."""


class AssignmentStore(Protocol):
    """Current assignments, statuses of their devices, and settlements of past rounds."""

    def assignments(self) -> list[AssignmentRow]:
        """Return the current assignments, oldest first."""

    def assignment(self, key: Key) -> AssignmentRow | None:
        """Return one, or None."""

    def assignment_frame(self, key: Key) -> bytes | None:
        """Return central's frame of one, or None."""

    def save_assignment(self, row: AssignmentRow, frame: bytes) -> None:
        """Keep an assignment; the same round's earlier frame is replaced."""

    def drop_assignment(self, key: Key) -> None:
        """Forget an assignment and its statuses; an unknown one is no error."""

    def statuses(self) -> list[StatusRow]:
        """Return every stored status."""

    def save_status(self, row: StatusRow) -> None:
        """Keep a device's newest status for a round."""

    def settlements(self) -> list[Settlement]:
        """Return the newest settlements, newest last."""

    def save_settlement(self, settlement: Settlement) -> None:
        """Keep a settlement; only the newest few stay."""


class ReceiptStore(Protocol):
    """Central's final receipts, kept for 7 days, and what is still in custody."""

    def final_receipt(self, xfer: str) -> FinalReceipt | None:
        """Return central's final receipt of a transfer, or None."""

    def save_receipt(self, receipt: FinalReceipt, now_s: float) -> None:
        """Remember a final receipt."""

    def holds(self, xfer: str) -> bool:
        """Tell whether a transfer is in custody."""

    def objects_in_custody(self, among: Collection[str] | None = None) -> set[str]:
        """Return the SHA-256 of the objects that a custody row names.

        Args:
            among: Look only for these; None: return all.
        """


class GatewayStore(DeviceStore, AssignmentStore, ReceiptStore, Protocol):
    """All rows of a gateway; every method runs inside the loop's transaction."""

    def purge(self, now_s: float) -> None:
        """Delete receipts and assignments after 7 days, devices that are gone."""
