"""Which devices are asked in a round: those that fit, all of them or a seeded random cohort.

Devices train one model only if their data are alike, so candidates are grouped by their data
source's description, and the group fixed by the task's first round is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from schemas.limits import MAX_COHORT, MIB
from schemas.messages import DataDescription, DeviceState
from schemas.tasks import TaskSubmission

DataKey = tuple[str, tuple[int, ...], str, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device as central knows it now."""

    device: str
    region: str
    state: DeviceState
    is_reachable: bool
    is_busy: bool = False
    #: Why it refused this task before, if it did.
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """The devices that could take part.

    Attributes:
        devices: Their ids, sorted.
        data: The data source that they share; None when no device fits.
        misfits: Why the others do not fit, and how many of them.
    """

    devices: tuple[str, ...]
    data: DataDescription | None
    misfits: dict[str, int]

    def describe(self, needed: int) -> str:
        """Return both numbers and the reasons, for a person."""
        counted = ", ".join(f"{count} {why}" for why, count in sorted(self.misfits.items()))
        why = f" ({counted})" if counted else ""
        return f"{len(self.devices)} devices fit, {needed} are needed{why}"


def find_fit(
    task: TaskSubmission, candidates: Iterable[Candidate], data: DataKey | None = None
) -> Fit:
    """Return the devices that fit a task.

    Args:
        task: What is asked.
        candidates: Every known device.
        data: The data that the task's earlier rounds used; None chooses the largest group,
            the first by name where groups are equally large.
    """
    misfits: Counter[str] = Counter()
    groups: dict[DataKey, dict[str, DataDescription]] = {}
    regions: dict[str, str] = {}
    for candidate in candidates:
        regions[candidate.device] = candidate.region
        why = misfit(task, candidate)
        sources = [] if why else _sources(task, candidate, data)
        if why or not sources:
            misfits[why or "without its data"] += 1
        for source in sources:
            groups.setdefault(source.key, {})[candidate.device] = source
    if not groups:
        return Fit((), None, dict(misfits))
    best = max(sorted(groups), key=lambda key: len(groups[key]))
    members = groups[best]
    others = {device for group in groups.values() for device in group} - set(members)
    if others:
        misfits["with unlike data"] += len(others)
    taken = _at_most_a_cohort_a_region(sorted(members), regions)
    if len(taken) < len(members):
        misfits[f"beyond {MAX_COHORT} in one region"] += len(members) - len(taken)
    return Fit(taken, members[taken[0]], dict(misfits))


def misfit(task: TaskSubmission, candidate: Candidate) -> str | None:
    """Return why a device does not fit, in words that read after a number; None if it does."""
    if task.regions is not None and candidate.region not in task.regions:
        return "in other regions"
    if not candidate.is_reachable:
        return "offline"
    if candidate.refused:
        return f"refused the task ({candidate.refused})"
    if why := _lacks(task, candidate.state):
        return why
    return "busy" if candidate.is_busy else None


def choose(task: TaskSubmission, fit: Fit, min_clients: int, round_number: int) -> tuple[str, ...]:
    """Return the cohort of a round, sorted; the same for the same task, fleet and round."""
    size = min(task.cohort_size(min_clients), len(fit.devices))
    if task.selection == "all" or size == len(fit.devices):
        return fit.devices
    rng = np.random.default_rng([task.seed, round_number])
    picked = rng.choice(len(fit.devices), size=size, replace=False)
    return tuple(fit.devices[index] for index in sorted(picked))


def _at_most_a_cohort_a_region(
    devices: Iterable[str], regions: Mapping[str, str]
) -> tuple[str, ...]:
    """Leave out what one assignment to a region could not name."""
    counts: Counter[str] = Counter()
    taken = []
    for device in devices:
        counts[regions[device]] += 1
        if counts[regions[device]] <= MAX_COHORT:
            taken.append(device)
    return tuple(taken)


def _sources(
    task: TaskSubmission, candidate: Candidate, data: DataKey | None
) -> list[DataDescription]:
    return [
        source
        for source in candidate.state.data
        if source.examples > 0
        and (task.data is None or source.name == task.data)
        and (data is None or source.key == data)
    ]


def _lacks(task: TaskSubmission, state: DeviceState) -> str | None:
    asked, has = task.requires, state.capabilities
    if asked.memory_mb is not None and has.memory_bytes < asked.memory_mb * MIB:
        return "with too little memory"
    if asked.backend is not None and asked.backend not in has.backends:
        return f"without backend {asked.backend}"
    if asked.accelerator is not None and asked.accelerator != has.accelerator:
        return f"without accelerator {asked.accelerator}"
    if asked.profiles is not None and state.profile not in asked.profiles:
        return f"without profile {' or '.join(asked.profiles)}"
    floor = asked.battery_percent
    if floor is not None and has.battery_percent is not None and has.battery_percent < floor:
        return "with a low battery"
    return None
