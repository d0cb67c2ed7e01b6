"""How central's work and its fleet stand at one moment, in numbers that any thread may read."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from central.core.rounds import Phase
from central.service.desk import Desk
from central.service.records import TaskRecord

#: A task that has ended is told for so long, or nobody would see how it came out.
_TOLD_S = 600.0


class Whereabouts(NamedTuple):
    """One device: its region, and ``online``, ``silent``, ``offline`` or ``unreachable``.

    A tuple, for there may be ten thousand of them.
    """

    device: str
    region: str
    state: str


@dataclass(frozen=True, slots=True)
class TaskStanding:
    """One task that runs or has ended a moment ago."""

    task: str
    committed: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand.

    Attributes:
        tasks: Those that have not ended, by state.
        rounds: The open ones, by phase.
        told: Tasks that have not ended, and newly ended ones.
        devices: Every known device.
        gateways: Their regions: online or not.
        pulls: Large updates on their way here.
        parked: Messages that could not be handled.
    """

    tasks: Counter[str]
    rounds: Counter[str]
    told: tuple[TaskStanding, ...]
    devices: tuple[Whereabouts, ...]
    gateways: dict[str, bool]
    pulls: int
    parked: int


def take_standing(desk: Desk, now_s: float) -> Standing:
    """Look at the tables; call it on the loop's thread, outside of a transaction.

    Args:
        desk: Central's.
        now_s: Now, unix seconds.
    """
    told = desk.store.tasks_since(now_s - _TOLD_S)
    live = [task for task in told if not task.progress.is_final]
    gateways = desk.store.gateways()
    reachable = {one.region: frozenset(one.state.silent) for one in gateways if one.is_online}
    return Standing(
        tasks=Counter(task.progress.state for task in live),
        rounds=Counter(phase.value for task in live if (phase := _phase(desk, task))),
        told=tuple(TaskStanding(one.task, one.progress.committed, one.metrics) for one in told),
        devices=tuple(
            Whereabouts(device, region, _state(device, reachable.get(region), is_online))
            for device, region, is_online in desk.store.whereabouts()
        ),
        gateways={one.region: one.is_online for one in gateways},
        pulls=len(desk.puller.keys()),
        parked=desk.parked().count,
    )


def _phase(desk: Desk, task: TaskRecord) -> Phase | None:
    record = desk.open_round(task)
    return record.state.phase if record else None


def _state(device: str, silent: frozenset[str] | None, is_online: bool) -> str:  # noqa: FBT001
    if not is_online:
        return "offline"
    if silent is None:
        return "unreachable"
    return "silent" if device in silent else "online"
