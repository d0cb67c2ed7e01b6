"""What a run of the benchmark tells: tables for people, one object for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.figures import AIMS, Spread, intervals, ms
from benchmarks.fleet import Played, Usage
from benchmarks.legs import LEGS, legs, medians, traffic
from benchmarks.namespace import has_own_network
from fedfleet.tables import size, table

OTHERS = " (with what others sent meanwhile)"


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured with one number of devices.

    Attributes:
        devices: How many.
        plain_s: Seconds of each round over plain paho.
        played: The fleet's rounds.
        durable_write_s: One durable write on this disk, over the whole run.
        load: Load average when the rounds began.
    """

    devices: int
    plain_s: Sequence[float]
    played: Played
    durable_write_s: float
    load: float

    @property
    def wall(self) -> Spread:
        """Time from commit to commit."""
        return Spread.of(intervals(self.played.commits_s))

    @property
    def wall_mean_s(self) -> float:
        """Time from the first commit to the last, by the number of rounds; it hides nothing."""
        commits_s = self.played.commits_s
        return (commits_s[-1] - commits_s[0]) / (len(commits_s) - 1)

    @property
    def told(self) -> Spread:
        """The round times that central states."""
        return Spread.of([one.seconds for one in self.played.summaries])

    @property
    def limit_s(self) -> float | None:
        """The aim on this disk, if there is one for so many devices."""
        aim = AIMS.get(self.devices)
        return aim.limit_s(self.durable_write_s) if aim else None

    @property
    def is_met(self) -> bool:
        """Whether the aim is met; without an aim there is nothing to miss."""
        return self.limit_s is None or self.wall_mean_s <= self.limit_s

    def verdict(self) -> str:
        """Return the aim and whether it is met, in one line."""
        limit_s = self.limit_s
        if limit_s is None:
            return f"{self.devices} devices: there is no aim"
        word = "met" if self.is_met else "MISSED"
        return (
            f"{self.devices} devices: {ms(self.wall_mean_s)} ms a round, "
            f"aim {AIMS[self.devices]} = {ms(limit_s)} ms: {word}"
        )


def rounds_table(results: Sequence[Result]) -> str:
    """Return the round times of all fleets."""
    columns = ("devices", "rounds", "mean ms", "commit to commit", "as central tells",
               "plain paho", "load")  # fmt: skip
    rows = [
        (
            str(one.devices),
            str(one.wall.count),
            ms(one.wall_mean_s),
            str(one.wall),
            str(one.told),
            str(Spread.of(one.plain_s)),
            f"{one.load:.1f}",
        )
        for one in results
    ]
    return table(columns, rows)


def legs_table(one: Result) -> str:
    """Return where the time of the observed rounds went."""
    rounds = legs(one.played.sightings)
    if not rounds:
        return "no round was observed as a whole"
    found = medians(list(rounds.values()))
    total = sum(found)
    rows = [
        (ms(leg_s), f"{100 * leg_s / total:.0f}", program, what)
        for leg_s, (program, what) in zip(found, LEGS, strict=True)
    ]
    rows.append((ms(total), "100", "all", f"sum of the medians of {len(rounds)} rounds"))
    by_program = {program: 0.0 for program, _ in LEGS}
    for leg_s, (program, _) in zip(found, LEGS, strict=True):
        by_program[program] += leg_s
    shares = ", ".join(f"{program} {ms(leg_s)} ms" for program, leg_s in by_program.items())
    observed = Spread.of(intervals(one.played.observed_s))
    head = f"observed rounds: {observed} commit to commit; {shares}"
    return f"{head}\n{table(('median ms', '%', 'where', 'what'), rows)}"


def traffic_table(one: Result) -> str:
    """Return what a round publishes."""
    sightings = one.played.sightings
    rows = [
        (name, f"{messages:.1f}", size(total))
        for name, messages, total in traffic(sightings, sorted(legs(sightings)))
    ]
    return table(("frames", "messages a round", "bytes a round"), rows)


def usage_table(one: Result) -> str:
    """Return what a round costs each program."""
    rows = [
        (name, ms(cpu_s), size(written)) for name, (cpu_s, written) in usage_by_role(one).items()
    ]
    loopback = size(loopback_bytes(one))
    return (
        f"{table(('process', 'CPU ms a round', 'written a round'), rows)}\n"
        f"loopback: {loopback} a round{'' if has_own_network() else OTHERS}"
    )


def usage_by_role(one: Result) -> dict[str, tuple[float, float]]:
    """Return CPU seconds and bytes written a round of each program, of a device on average."""
    count = len(one.played.commits_s) - 1
    found: dict[str, list[tuple[float, float]]] = {}
    for name in one.played.after.cpu_s:
        used = (
            _used(one.played.before, one.played.after, name, "cpu_s") / count,
            _used(one.played.before, one.played.after, name, "written_bytes") / count,
        )
        found.setdefault(_role(name), []).append(used)
    return {
        role: (mean(cpu for cpu, _ in parts), mean(written for _, written in parts))
        for role, parts in found.items()
    }


def loopback_bytes(one: Result) -> float:
    """Return the bytes over the loopback interface a round."""
    count = len(one.played.commits_s) - 1
    return (one.played.after.loopback_bytes - one.played.before.loopback_bytes) / count


def as_object(one: Result) -> dict[str, object]:
    """Return a result for JSON."""
    rounds = legs(one.played.sightings)
    found = medians(list(rounds.values())) if rounds else []
    limit_s = one.limit_s
    return {
        "devices": one.devices,
        "load": round(one.load, 2),
        "mean_ms": round(one.wall_mean_s * 1000, 3),
        "wall": one.wall.as_object(),
        "told": one.told.as_object(),
        "plain_paho": Spread.of(one.plain_s).as_object(),
        "aim_ms": None if limit_s is None else round(limit_s * 1000, 3),
        "is_met": one.is_met,
        "legs_ms": [
            {"where": program, "what": what, "median_ms": round(leg_s * 1000, 3)}
            for leg_s, (program, what) in zip(found, LEGS, strict=False)
        ],
        "cpu_ms": {role: round(cpu * 1000, 3) for role, (cpu, _) in usage_by_role(one).items()},
        "written_bytes": {role: round(size) for role, (_, size) in usage_by_role(one).items()},
        "loopback_bytes": round(loopback_bytes(one)),
    }


def _used(before: Usage, after: Usage, name: str, what: str) -> float:
    return float(getattr(after, what)[name] - getattr(before, what)[name])


def _role(name: str) -> str:
    if name.startswith("device-"):
        return "each device"
    return "gateway" if name.startswith("gateway-") else name
