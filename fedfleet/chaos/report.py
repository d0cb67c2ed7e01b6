"""What a chaos run gave: one object for programs, one table for people, and whether it holds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fedfleet.auditing import Audit
from fedfleet.chaos.choices import ChaosOptions
from fedfleet.chaos.nemesis import KINDS
from fedfleet.chaos.watch import Recovery
from fedfleet.tables import size, table

_ROLES = ("broker", "central", "gateway", "device")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that has ended.

    Attributes:
        options: As chosen.
        counts: Faults by (kind, role).
        audit: What the books say at the end.
        recoveries: Central's.
        final_models: What the last status of each task named as its model.
        proxied_bytes: Bytes that went through the proxies, both ways.
        seconds: Of hurting; then of healing, until everything had ended.
        folder: Where logs, states and the list of faults are.
    """

    options: ChaosOptions
    counts: Counter[tuple[str, str]]
    audit: Audit
    recoveries: Sequence[Recovery]
    final_models: dict[str, str | None]
    proxied_bytes: int
    seconds: tuple[float, float]
    folder: Path

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(self.counts["kill", role] for role in _ROLES)

    @property
    def accepted(self) -> int:
        """Updates in central's tables."""
        return sum(task.accepted for task in self.audit.tasks)

    @property
    def broken(self) -> tuple[str, ...]:
        """What broke the promise; empty when it holds."""
        return (*self.audit.findings, *self._receipts(), *self._models())

    @property
    def missed(self) -> tuple[str, ...]:
        """What was asked for and not reached in the time."""
        wanted = (
            ("kills", self.kills, self.options.kills),
            ("updates", self.accepted, self.options.updates),
        )
        return tuple(f"{n} {what}, {least} were wanted" for what, n, least in wanted if n < least)

    def _receipts(self) -> list[str]:
        """Compare numbers: nothing is under way any more, so each accepted one has a receipt."""
        devices = self.audit.devices
        if devices.waiting:
            return [f"{devices.waiting} updates have no final receipt after everything had healed"]
        if devices.counted != self.accepted:
            return [f"{self.accepted} updates are accepted, {devices.counted} are receipted so"]
        return []

    def _models(self) -> list[str]:
        """Compare the model that the world was told of with the one aggregated again."""
        found = []
        for task in self.audit.tasks:
            last = list(task.recomputed.values())[-1:]
            told = self.final_models.get(task.task)
            if last and told != last[0]:
                found.append(f"{task.task}: its status names model {told}, recomputed {last[0]}")
        return found


def as_object(outcome: Outcome) -> dict[str, object]:
    """Return the run as one JSON object."""
    tasks = outcome.audit.tasks
    return {
        "holds": not outcome.broken,
        "seed": outcome.options.seed,
        "broker": outcome.options.broker,
        "faults": {kind: {role: outcome.counts[kind, role] for role in _ROLES} for kind in KINDS},
        "kills": outcome.kills,
        "tasks": len(tasks),
        "rounds_committed": sum(task.committed for task in tasks),
        "rounds_abandoned": sum(task.abandoned for task in tasks),
        "updates_accepted": outcome.accepted,
        "updates_receipted": outcome.audit.devices.counted,
        "updates_counted": sum(task.counted for task in tasks),
        "updates_discarded": sum(sum(task.discarded.values()) for task in tasks),
        "refused": dict(_refused(outcome)),
        "update_bytes": sum(task.update_bytes for task in tasks),
        "proxied_bytes": outcome.proxied_bytes,
        "models_recomputed": sum(len(task.recomputed) for task in tasks),
        "lost": outcome.audit.lost,
        "double": outcome.audit.double,
        "central_restart_s": restarts(outcome.recoveries),
        "seconds": round(sum(outcome.seconds), 1),
        "broken": list(outcome.broken),
        "missed": list(outcome.missed),
        "folder": str(outcome.folder),
    }


def restarts(recoveries: Sequence[Recovery]) -> dict[str, dict[str, float | int | None]]:
    """Return how long central's restarts took, in numbers, median and longest, seconds."""
    calm = [one for one in recoveries if not one.is_disturbed]
    return {
        "to_status": _spread([one.told_s for one in recoveries]),
        "to_assignment_or_receipt": _spread([one.moved_s for one in recoveries]),
        "to_status_alone": _spread([one.told_s for one in calm]),
        "to_assignment_or_receipt_alone": _spread([one.moved_s for one in calm]),
    }


def as_text(outcome: Outcome) -> str:
    """Return the run as tables and a verdict."""
    rows = [
        (kind, *(str(outcome.counts[kind, role]) for role in _ROLES),
         str(sum(outcome.counts[kind, role] for role in _ROLES)))
        for kind in KINDS
    ]  # fmt: skip
    lines = [
        table(("fault", *_ROLES, "sum"), rows),
        "",
        *_sums(outcome),
        *(
            f"central's restart {name.replace('_', ' ')}: {_told(spread)}"
            for name, spread in restarts(outcome.recoveries).items()
        ),
        *(f"BROKEN: {text}" for text in outcome.broken),
        *(f"not reached in {outcome.options.seconds:g} s: {text}" for text in outcome.missed),
        verdict(outcome),
    ]
    return "\n".join(lines)


def _sums(outcome: Outcome) -> tuple[str, ...]:
    found, (hurt_s, healed_s) = as_object(outcome), outcome.seconds
    refused = ", ".join(f"{n} {status}" for status, n in sorted(_refused(outcome).items()))
    updates = sum(task.update_bytes for task in outcome.audit.tasks)
    rounds = f"{found['rounds_committed']} rounds committed, {found['rounds_abandoned']} abandoned"
    ends = f"{found['updates_counted']} counted, {found['updates_discarded']} discarded"
    return (
        f"{found['tasks']} tasks, {rounds}, {found['models_recomputed']} aggregated again",
        f"{outcome.accepted} updates accepted, {found['updates_receipted']} receipted so, {ends}",
        f"refused: {refused or 'none'}",
        f"{size(updates)} of accepted updates, {size(outcome.proxied_bytes)} through the proxies",
        f"{hurt_s:.0f} s of chaos, {healed_s:.0f} s to heal",
        f"lost {outcome.audit.lost}, double {outcome.audit.double}",
    )


def verdict(outcome: Outcome) -> str:
    """Return one line: whether it holds, and the seed to hurt in the same way again."""
    word = "the promise is BROKEN" if outcome.broken else "the promise holds"
    return f"{word} (--seed {outcome.options.seed})"


def _refused(outcome: Outcome) -> Counter[str]:
    total: Counter[str] = Counter()
    for task in outcome.audit.tasks:
        total.update(task.refused)
    return total


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    return {
        "n": len(known),
        "median": round(median(known), 2) if known else None,
        "max": round(max(known), 2) if known else None,
    }


def _told(spread: dict[str, float | int | None]) -> str:
    if not spread["n"]:
        return "not measured"
    return f"median {spread['median']} s, at most {spread['max']} s ({spread['n']} times)"
