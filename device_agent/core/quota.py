"""How much a device may owe: which unsent updates go when the outbox is over its quota.

Rules:

- Only what is superseded goes, the oldest first: a newer round of its task is known here, so it
  could at best be counted as late.
- What a gateway has said that it holds stays until the final receipt, superseded or not.
- The newest update of each task is never dropped. When such updates alone fill the quota, the
  device takes no further job until some of them have their receipt.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from device_agent.core.job import JobKey, Refusal

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Owed:
    """One update that has no final receipt.

    Attributes:
        key: Task and round.
        xfer: Transfer id.
        sha256: The object's digest.
        size_bytes: The object's size.
        is_held: Whether a gateway has said that it holds the update.
        created_s: When it was made, unix seconds.
    """

    key: JobKey
    xfer: str
    sha256: str
    size_bytes: int
    is_held: bool
    created_s: float


def too_much(
    owed: Collection[Owed], newest: Mapping[str, int], quota_bytes: int
) -> tuple[Owed, ...]:
    """Return what must go for the rest to fit, the oldest first; less when that is not enough.

    Args:
        owed: Everything in the outbox.
        newest: The newest round known here, by task.
        quota_bytes: Most bytes in the outbox.
    """
    excess = _total(owed) - quota_bytes
    dropped: list[Owed] = []
    for one in sorted(_superseded(owed, newest), key=lambda one: (one.created_s, one.key.round)):
        if excess <= 0:
            break
        dropped.append(one)
        excess -= one.size_bytes
    return tuple(dropped)


def refusal(
    owed: Collection[Owed], newest: Mapping[str, int], parameters: int, quota_bytes: int
) -> Refusal | None:
    """Return why a further job is not taken, or None; one update is always allowed.

    Args:
        owed: Everything in the outbox.
        newest: The newest round known here, by task, the further job's included.
        parameters: Length of the update that the job would give, before encoding.
        quota_bytes: Most bytes in the outbox.
    """
    kept = _total(owed) - _total(_superseded(owed, newest))
    needed = parameters * _FLOAT_BYTES
    if kept == 0 or kept + needed <= quota_bytes:
        return None
    return Refusal(
        "storage",
        f"outbox: {kept} bytes without a receipt and {needed} to come; "
        f"at most {quota_bytes} are allowed",
    )


def _superseded(owed: Iterable[Owed], newest: Mapping[str, int]) -> list[Owed]:
    return [one for one in owed if not one.is_held and newest.get(one.key.task, 0) > one.key.round]


def _total(owed: Iterable[Owed]) -> int:
    return sum(one.size_bytes for one in owed)
