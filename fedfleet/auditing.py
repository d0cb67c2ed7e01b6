"""One look at everybody's books: central's, and against them what devices and gateways were told.

The devices and gateways are read first: what they were told must be in central's tables already.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from central.adapters.audit import AuditError, Forgotten, TaskAudit, open_books
from central.core.strategies.base import Strategy
from central.service.records import ContributionRecord
from device_agent.adapters import receipts as device_receipts
from device_agent.adapters.receipts import DeviceReceipt
from fedfleet.errors import FleetError
from fedfleet.tables import size, table
from regional_gateway.adapters import receipts as gateway_receipts
from regional_gateway.adapters.receipts import GatewayReceipt

_COUNTED = ("accepted", "duplicate")
_COLUMNS = (
    "task", "state", "committed", "abandoned", "accepted", "counted", "discarded", "open",
    "refused", "bytes", "recomputed", "lost", "double",
)  # fmt: skip


class BooksError(FleetError):
    """Somebody's books cannot be read."""


@dataclass(slots=True)
class ReceiptsAudit:
    """What receivers' receipts say, held against central's tables.

    Attributes:
        read: How many final receipts there are.
        counted: Those that say accepted or duplicate.
        waiting: Updates that have none yet.
        lost: Receipted as accepted or duplicate, and not in central's tables.
        forgotten: The same, of rounds that a restored central declares to have forgotten.
        findings: One sentence for each thing that is wrong.
    """

    read: int = 0
    counted: int = 0
    waiting: int = 0
    lost: int = 0
    forgotten: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Audit:
    """The whole."""

    tasks: tuple[TaskAudit, ...]
    devices: ReceiptsAudit
    gateways: ReceiptsAudit

    @property
    def lost(self) -> int:
        """Updates that were receipted and are nowhere."""
        return sum(one.lost for one in self.tasks) + self.devices.lost + self.gateways.lost

    @property
    def double(self) -> int:
        """Times that an update counts beyond the first."""
        return sum(one.double for one in self.tasks)

    @property
    def findings(self) -> tuple[str, ...]:
        """Everything that is wrong; empty when the promise holds."""
        of_tasks = (f"{one.task}: {text}" for one in self.tasks for text in one.findings)
        return (*of_tasks, *self.devices.findings, *self.gateways.findings)


def run_audit(
    state_dir: Path,
    strategies: Mapping[str, Callable[..., Strategy]],
    task: str | None = None,
    device_dirs: Sequence[Path] = (),
    gateway_dirs: Sequence[Path] = (),
) -> Audit:
    """Check the promise, reading only; every program may be running.

    Args:
        state_dir: Central's state directory.
        strategies: A user's own strategies, by name.
        task: One task; None: all.
        device_dirs: State directories of devices.
        gateway_dirs: State directories of gateways.

    Raises:
        BooksError: Some books cannot be read, or there is no such task.
    """
    try:
        devices = {path: device_receipts.read_receipts(path) for path in device_dirs}
        gateways = {path: gateway_receipts.read_receipts(path) for path in gateway_dirs}
        with open_books(state_dir, strategies) as books:
            names = books.tasks() if task is None else [task]
            audits = tuple(books.audit(name) for name in names)
            accepted = books.contributions()
            forgotten = books.forgotten()
    except (
        AuditError,
        device_receipts.ReceiptsError,
        gateway_receipts.ReceiptsError,
    ) as error:
        raise BooksError(str(error)) from error
    known = {one.task for one in audits}
    return Audit(
        audits,
        _of_devices(devices, accepted, known, forgotten),
        _of_gateways(gateways, accepted, forgotten),
    )


def _of_devices(
    books: Mapping[Path, list[DeviceReceipt]],
    accepted: Mapping[str, ContributionRecord],
    tasks: set[str],
    forgotten: Forgotten,
) -> ReceiptsAudit:
    found = ReceiptsAudit()
    for path, all_rows in books.items():
        rows = [row for row in all_rows if row.task in tasks]
        ids = {accepted[row.xfer].device for row in rows if row.xfer in accepted}
        places = {(one.task, one.round) for one in accepted.values() if one.device in ids}
        found.waiting += sum(row.receipt is None for row in rows)
        for row in rows:
            if row.receipt is not None:
                found.read += 1
                found.counted += row.receipt in _COUNTED
                name = f"{path.name}: {row.task} round {row.round}"
                is_there = (row.task, row.round) in places
                is_lost = row.receipt in _COUNTED and row.xfer not in accepted and not is_there
                if is_lost and forgotten.holds(row.task, row.round):
                    found.forgotten += 1
                    continue
                _check_device_row(found, name, row, accepted.get(row.xfer), is_there=is_there)
    return found


def _check_device_row(
    found: ReceiptsAudit,
    name: str,
    row: DeviceReceipt,
    counted: ContributionRecord | None,
    *,
    is_there: bool,
) -> None:
    """Check one receipt; ``duplicate`` may also mean another update of the same device."""
    is_held = counted is not None or (row.receipt == "duplicate" and is_there)
    if row.receipt in _COUNTED and not is_held:
        found.lost += 1
        found.findings.append(f"{name}: receipted {row.receipt}, not in central's tables")
    if row.receipt not in _COUNTED and counted is not None:
        found.findings.append(f"{name}: receipted {row.receipt}, in central's tables all the same")
    if row.settled and counted and counted.settled and row.settled != counted.settled:
        found.findings.append(f"{name}: told {row.settled}, central has {counted.settled}")


def _of_gateways(
    books: Mapping[Path, list[GatewayReceipt]],
    accepted: Mapping[str, ContributionRecord],
    forgotten: Forgotten,
) -> ReceiptsAudit:
    """Check what gateways passed down; those of tasks that were purged name no task."""
    found = ReceiptsAudit()
    for path, rows in books.items():
        for row in rows:
            found.read += 1
            is_there = row.receipt.xfer in accepted
            name = f"{path.name}: transfer {row.receipt.xfer} of {row.device}"
            if row.receipt.status == "accepted" and not is_there and forgotten.restores:
                found.forgotten += 1  # its round is not told; central says what it has forgotten
            elif row.receipt.status == "accepted" and not is_there:
                found.lost += 1
                found.findings.append(f"{name}: receipted accepted, not in central's tables")
            if row.receipt.status not in _COUNTED and is_there:
                found.findings.append(f"{name}: refused, in central's tables all the same")
    return found


def as_object(audit: Audit) -> dict[str, object]:
    """Return the audit as one JSON object."""
    return {
        "holds": not audit.findings,
        "lost": audit.lost,
        "double": audit.double,
        "tasks": [asdict(one) for one in audit.tasks],
        "devices": asdict(audit.devices),
        "gateways": asdict(audit.gateways),
        "findings": list(audit.findings),
    }


def as_text(audit: Audit) -> str:
    """Return the audit as a table, its reasons, and its findings."""
    lines = [table(_COLUMNS, [_row(one) for one in audit.tasks])]
    lines += [
        f"{one.task}: {number} {what}"
        for one in audit.tasks
        for what, number in [
            *((f"discarded: {reason}", n) for reason, n in sorted(one.discarded.items())),
            *((f"refused: {status}", n) for status, n in sorted(one.refused.items())),
        ]
    ]
    for name, books in (("devices", audit.devices), ("gateways", audit.gateways)):
        if books.read or books.waiting:
            lines.append(f"{name}: {books.read} final receipts, {books.waiting} awaited")
        if books.forgotten:
            lines.append(f"{name}: {books.forgotten} receipted before central was restored")
    lines += [f"WRONG: {text}" for text in audit.findings]
    verdict = "the promise holds" if not audit.findings else "the promise is BROKEN"
    lines.append(f"{verdict}: lost {audit.lost}, double {audit.double}")
    return "\n".join(lines)


def _row(one: TaskAudit) -> tuple[str, ...]:
    return (
        one.task,
        one.state,
        str(one.committed),
        str(one.abandoned),
        str(one.accepted),
        str(one.counted),
        str(sum(one.discarded.values())),
        str(one.open),
        str(sum(one.refused.values())),
        size(one.update_bytes),
        str(len(one.recomputed)),
        str(one.lost),
        str(one.double),
    )
