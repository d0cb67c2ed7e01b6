"""Whom to send an assignment and by which address, and who must be asked again.

One message to everyone costs the region's broker one copy from the gateway, but wakes devices
that are not asked; it pays when at least half of the region's devices are in the cohort.
"""

from collections.abc import Collection, Iterable, Mapping

from schemas.topics import EVERYONE_LEVEL

#: Fewer than this and there is nothing to share.
MIN_SHARED = 2

Order = tuple[int, int]


def targets(cohort: Collection[str], online: Collection[str]) -> tuple[str, ...]:
    """Return the nodes (device ids, or ``"all"``) that get a new assignment first.

    Args:
        cohort: The devices that are asked.
        online: The region's devices that are online now.
    """
    if len(cohort) >= MIN_SHARED and 2 * len(cohort) >= len(online):
        return (EVERYONE_LEVEL,)
    return tuple(cohort)


def shares_model(cohort: Collection[str]) -> bool:
    """Tell whether one copy of the model to everyone is worth more than one to each."""
    return len(cohort) >= MIN_SHARED


def shares_answer(asking: Collection[str], cohort: Collection[str]) -> bool:
    """Tell whether what some devices have asked for goes to everyone, or to each who asked."""
    return len(asking) >= MIN_SHARED and 2 * len(asking) >= len(cohort)


def unanswered(
    cohort: Iterable[str], answered: Collection[str], offline: Collection[str]
) -> tuple[str, ...]:
    """Return the devices to ask again: no status yet, and not known to be offline.

    A device that is offline asks by itself as soon as it is back.
    """
    return tuple(d for d in cohort if d not in answered and d not in offline)


def is_newer(known: Order | None, order: Order) -> bool:
    """Tell whether a status with ``order`` (boot, seq) comes after the known one."""
    return known is None or order > known


def superseded(rounds: Mapping[str, Collection[int]], task: str, number: int) -> tuple[int, ...]:
    """Return the rounds of ``task`` that an assignment for round ``number`` makes obsolete.

    Args:
        rounds: The rounds that are held, by task.
        task: The new assignment's task.
        number: The new assignment's round.
    """
    return tuple(sorted(r for r in rounds.get(task, ()) if r < number))


def is_outdated(rounds: Mapping[str, Collection[int]], task: str, number: int) -> bool:
    """Tell whether a newer round of the same task is held already."""
    return any(r > number for r in rounds.get(task, ()))
