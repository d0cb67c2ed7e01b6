"""What a run gave: one object for programs, one table for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedfleet.statuses import bytes_lines, rounds_table
from fedfleet.tables import number
from schemas.tasks import RoundSummary, TaskStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that has ended.

    Attributes:
        status: The task's last status.
        rounds: Every ended round, by number, also those that the status no longer lists.
        seconds: From the task's submission to its last status.
        start_seconds: From the first process to the task's submission.
        folder: Where its files are.
        submission: The task, as it was submitted.
    """

    status: TaskStatus
    rounds: tuple[RoundSummary, ...]
    seconds: float
    start_seconds: float
    folder: Path
    submission: Mapping[str, object]

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the last model on what central held out, if it was measured."""
        measured = [item.metrics["accuracy"] for item in self.rounds if "accuracy" in item.metrics]
        return self.status.metrics.get("accuracy", measured[-1] if measured else None)


def as_object(outcome: Outcome) -> dict[str, object]:
    """Return the run as one JSON object."""
    status = outcome.status
    return {
        "task": status.task,
        "state": status.state,
        "rounds_committed": status.committed,
        "rounds_abandoned": status.abandoned,
        "updates_accepted": status.updates_accepted,
        "updates_late": status.late,
        "accuracy": outcome.accuracy,
        "seconds": round(outcome.seconds, 3),
        "start_seconds": round(outcome.start_seconds, 3),
        "uplink_bytes": status.uplink_bytes,
        "downlink_bytes": status.downlink_bytes,
        "uplink_wire_bytes": status.uplink_wire_bytes,
        "downlink_wire_bytes": status.downlink_wire_bytes,
        "uplink_ratio": status.uplink_ratio,
        "uplink_wire_ratio": status.uplink_wire_ratio,
        "parameters": status.parameters,
        "model_sha256": status.model_sha256,
        "submission": dict(outcome.submission),
        "folder": str(outcome.folder),
    }


def as_text(outcome: Outcome) -> str:
    """Return the run as a table and some lines below it."""
    status = outcome.status
    return "\n".join(
        (
            rounds_table(outcome.rounds, status.parameters),
            "",
            f"{status.committed} rounds committed, {status.updates_accepted} updates accepted",
            f"{outcome.seconds:.1f} s, after {outcome.start_seconds:.1f} s to start the fleet",
            f"accuracy {number(outcome.accuracy)} on data that no device has",
            *bytes_lines(status),
            f"{outcome.folder}: {_listing(outcome.folder)}",
        )
    )


def _listing(folder: Path) -> str:
    return ", ".join(_names(sorted(folder.iterdir())))


def _names(paths: Sequence[Path]) -> list[str]:
    return [f"{path.name}/" if path.is_dir() else path.name for path in paths]
