"""The answer to a device's ``next``: an assignment, or that there is none.

A question is always answered. What a device holds or has ended is not given to it again; what it
holds and nobody wants any more is missing in ``keep``.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from schemas.messages import JobRef, Settlement
from schemas.tasks import Name

Key = tuple[str, int]

#: States of a job after which its device needs no assignment for it.
ENDED: frozenset[Name] = frozenset({"rejected", "done", "failed"})
MAX_KEEP = 64
MAX_SETTLED = 8


@dataclass(frozen=True, slots=True)
class Open:
    """One current assignment.

    Attributes:
        key: Its task and round.
        cohort: The devices that it asks.
    """

    key: Key
    cohort: frozenset[str]


@dataclass(frozen=True, slots=True)
class Give:
    """Answer with this assignment's frame."""

    key: Key


@dataclass(frozen=True, slots=True)
class Nothing:
    """Answer that there is nothing new, and which of the jobs held are still wanted."""

    keep: tuple[JobRef, ...]


def answer(
    device: str,
    holding: Collection[Key],
    assignments: Iterable[Open],
    ended: Collection[Key],
) -> Give | Nothing:
    """Return the answer to one question.

    Args:
        device: Who asks.
        holding: Task and round of the jobs that it has and that are not finally receipted.
        assignments: The current ones, oldest first.
        ended: Task and round of the jobs that the device is known to have ended.
    """
    own = [a for a in assignments if device in a.cohort]
    for assignment in own:
        if assignment.key not in holding and assignment.key not in ended:
            return Give(assignment.key)
    wanted = [a.key for a in own if a.key in holding]
    keep = tuple(JobRef(task=task, round=number) for task, number in wanted[:MAX_KEEP])
    return Nothing(keep)


def settled_for(
    device: str, settled: Iterable[Settlement], asked: Collection[Key] = ()
) -> tuple[Settlement, ...]:
    """Return the newest settlements that concern ``device``, other devices' ids left out.

    Those that the device asked for come last, and so are never left out.
    """
    own = [
        s.model_copy(
            update={
                "counted": tuple(d for d in s.counted if d == device),
                "discarded": tuple(d for d in s.discarded if d == device),
            }
        )
        for s in settled
        if device in s.counted or device in s.discarded
    ]
    own.sort(key=lambda s: (s.task, s.round) in asked)
    return tuple(own[-MAX_SETTLED:])


def unknown(asked: Iterable[Key], settled: Collection[Settlement]) -> tuple[Key, ...]:
    """Return which of the rounds asked for have no settlement here."""
    known = {(s.task, s.round) for s in settled}
    return tuple(key for key in asked if key not in known)


def dropped(held: Iterable[Key], asked: Collection[Key], keep: Collection[Key]) -> tuple[Key, ...]:
    """Return which held assignments central's answer to the gateway's own question ends.

    One that arrived after the question was asked is not judged by it.
    """
    return tuple(key for key in held if key in asked and key not in keep)
