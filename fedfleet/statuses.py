"""What central says of tasks, read from its messages and told in words."""

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from fedfleet.client import Message
from fedfleet.tables import number, size, table
from schemas.tasks import RoundSummary, TaskStatus
from schemas.topics import Kind

ROUND_COLUMNS = (
    "round", "outcome", "clients", "accuracy", "loss", "seconds", "up", "down", "x float32",
    "up wire", "down wire", "x on wire",
)  # fmt: skip
#: Shown beside them where a round had an uplink budget.
GRANTED_COLUMN = "granted"
_FLOAT32_BYTES = 4


def read_status(message: Message) -> TaskStatus | None:
    """Return the status in a message; None when it is something else, or was cleared."""
    if message.topic.kind is not Kind.TASK_STATUS or not message.payload:
        return None
    try:
        status = TaskStatus.model_validate_json(message.payload)
    except ValidationError:
        return None
    return status if status.task == message.topic.task else None


def newest(messages: Iterable[Message]) -> dict[str, TaskStatus]:
    """Return the last status of each task, by task id; a cleared one is gone."""
    found: dict[str, TaskStatus] = {}
    for message in messages:
        if message.topic.kind is Kind.TASK_STATUS and message.topic.task:
            found.pop(message.topic.task, None)
        if (status := read_status(message)) is not None:
            found[status.task] = status
    return found


def ratio_to_float32(summary: RoundSummary, parameters: int) -> float | None:
    """Return how many times smaller the updates were than as float32; None when unknown."""
    return _ratio(summary, parameters, summary.uplink_bytes)


def wire_ratio_to_float32(summary: RoundSummary, parameters: int) -> float | None:
    """Return the same with all that devices sent, packets and words beside the updates."""
    return _ratio(summary, parameters, summary.uplink_wire_bytes)


def round_cells(summary: RoundSummary, parameters: int) -> tuple[str, ...]:
    """Return one ended round as cells under ``ROUND_COLUMNS``."""
    outcome = summary.outcome if not summary.reason else f"{summary.outcome}: {summary.reason}"
    return (
        str(summary.round),
        outcome,
        str(summary.clients),
        number(summary.metrics.get("accuracy")),
        number(summary.metrics.get("loss")),
        f"{summary.seconds:.2f}",
        size(summary.uplink_bytes),
        size(summary.downlink_bytes),
        number(ratio_to_float32(summary, parameters), digits=1),
        size(summary.uplink_wire_bytes),
        size(summary.downlink_wire_bytes),
        number(wire_ratio_to_float32(summary, parameters), digits=1),
    )


def rounds_table(rounds: Sequence[RoundSummary], parameters: int) -> str:
    """Return the table of ended rounds; bids are a column where there were any."""
    rows = [round_cells(item, parameters) for item in rounds]
    if not any(item.bids for item in rounds):
        return table(ROUND_COLUMNS, rows)
    granted = [_granted(item) for item in rounds]
    with_bids = [(*row, cell) for row, cell in zip(rows, granted, strict=True)]
    return table((*ROUND_COLUMNS, GRANTED_COLUMN), with_bids)


def _granted(summary: RoundSummary) -> str:
    return f"{summary.granted} of {summary.bids} bids" if summary.bids else "-"


def round_line(summary: RoundSummary, parameters: int) -> str:
    """Return one ended round as a line for a log that is read as it grows."""
    _, outcome, clients, accuracy, loss, seconds, up, down, ratio, *wire = round_cells(
        summary, parameters
    )
    up_wire, down_wire, wire_ratio = wire
    line = (
        f"round {summary.round} {outcome}: accuracy {accuracy}, loss {loss}, {clients} clients, "
        f"{seconds} s, up {up} ({ratio} x smaller than float32), down {down}; "
        f"on the wire up {up_wire} ({wire_ratio} x), down {down_wire}"
    )
    return f"{line}, granted {_granted(summary)}" if summary.bids else line


def bytes_lines(status: TaskStatus) -> tuple[str, ...]:
    """Return what a task moved so far: updates and models, all of it on the wire, the codecs."""
    ratio, wire = number(status.uplink_ratio, digits=1), number(status.uplink_wire_ratio, digits=1)
    updates = (
        f"updates up {size(status.uplink_bytes)} ({ratio} x smaller than float32), "
        f"models down {size(status.downlink_bytes)}"
    )
    whole = (
        f"on the wire up {size(status.uplink_wire_bytes)} ({wire} x smaller), "
        f"down {size(status.downlink_wire_bytes)}: whole MQTT packets of the devices"
    )
    if not status.codecs:
        return updates, whole
    counts = ", ".join(f"{name}: {count}" for name, count in sorted(status.codecs.items()))
    return updates, whole, f"picked by devices in the last round: {counts}"


def _ratio(summary: RoundSummary, parameters: int, sent_bytes: int) -> float | None:
    raw = summary.clients * parameters * _FLOAT32_BYTES
    return raw / sent_bytes if raw and sent_bytes else None


def state_line(status: TaskStatus) -> str:
    """Return where a task stands, in one line."""
    parts = [f"{status.task}: {status.state}"]
    if status.reason:
        parts.append(status.reason)
    if status.rounds:
        parts.append(f"{status.committed} of {status.rounds} rounds committed")
    if not status.is_final and status.round is not None:
        phase = f" {status.phase}" if status.phase else ""
        parts.append(
            f"round {status.round}{phase}, {status.reported} of {status.min_clients} reported"
        )
    if "accuracy" in status.metrics:
        parts.append(f"accuracy {number(status.metrics['accuracy'])}")
    return ", ".join(parts)
