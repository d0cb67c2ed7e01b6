"""What one check found: whether it is well, what was seen, what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]
_RANKS: dict[Status, int] = {"ok": 0, "warning": 1, "failed": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: What was looked at, as ``broker.port``.
        status: ``failed``: the program cannot work so; ``warning``: it works, or nobody can tell.
        seen: What was seen.
        advice: What to do; empty when all is well.
    """

    check: str
    status: Status
    seen: str
    advice: str = ""


def ok(check: str, seen: str) -> Finding:
    """Return a finding of which nothing need be done."""
    return Finding(check, "ok", seen)


def warning(check: str, seen: str, advice: str) -> Finding:
    """Return a finding that a person should know."""
    return Finding(check, "warning", seen, advice)


def failed(check: str, seen: str, advice: str) -> Finding:
    """Return a finding with which the program cannot do its work."""
    return Finding(check, "failed", seen, advice)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst status; ``ok`` when nothing was found."""
    return max((finding.status for finding in findings), key=_RANKS.__getitem__, default="ok")
