"""Where the time of a round goes: from what passed the broker to the legs of each round. Pure.

A stage ends when the *last* device, or the last update, has passed it; so the legs of a round
add up to the time from one round's assignment to the next one's, and what happens beside that
path does not count.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.sightings import Sighting
from schemas.errors import WireError
from schemas.messages import Assignment, JobStatus, Receipt, UpdateManifest
from schemas.topics import Kind, Topic, parse

#: Each leg's program and what happens in it, in order.
LEGS = (
    ("central", "commit the opened round, publish the assignment"),
    ("gateway", "take the assignment, commit it, fan it out"),
    ("device", "take the assignment (until the last device has it)"),
    ("device", "commit the job, tell so"),
    ("device", "read the model, train nothing, encode"),
    ("device", "commit the update, publish it"),
    ("gateway", "take the update, commit it, pass it on"),
    ("central", "take the last update"),
    ("central", "commit it, publish its receipt"),
    ("central", "aggregate, store the model, commit the round, open the next"),
)


def legs(sightings: Iterable[Sighting]) -> dict[int, tuple[float, ...]]:
    """Return for each round that was seen whole its legs, in seconds, as in ``LEGS``."""
    rounds = _by_round(sightings)
    found = {}
    for number, seen in rounds.items():
        following = rounds.get(number + 1)
        moments = _moments(seen, following) if following else None
        if moments is not None:
            found[number] = _durations(moments)
    return found


def medians(rounds: Iterable[Sequence[float]]) -> list[float]:
    """Return the median of each leg over some rounds, in seconds."""
    return [median(leg) for leg in zip(*rounds, strict=True)]


def traffic(
    sightings: Iterable[Sighting], rounds: Sequence[int]
) -> list[tuple[str, float, float]]:
    """Return for each kind of frame how many, and how many bytes, a round publishes.

    Args:
        sightings: What passed.
        rounds: The rounds that were seen whole.

    Returns:
        Where it passed and its type, messages a round, bytes a round; most bytes first.
    """
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    numbers = _round_of_transfers(sightings := list(sightings))
    for one in sightings:
        if _number(one, numbers) in rounds:
            name = f"{_place(one)}: {one.type}"
            counts[name] += 1
            sizes[name] += one.size
    total = max(1, len(rounds))
    ordered = sorted(counts, key=lambda name: -sizes[name])
    return [(name, counts[name] / total, sizes[name] / total) for name in ordered]


def _by_round(sightings: Iterable[Sighting]) -> dict[int, list[Sighting]]:
    sightings = list(sightings)
    numbers = _round_of_transfers(sightings)
    rounds: dict[int, list[Sighting]] = defaultdict(list)
    for one in sightings:
        number = _number(one, numbers)
        if number is not None:
            rounds[number].append(one)
    return dict(rounds)


def _round_of_transfers(sightings: Iterable[Sighting]) -> dict[str, int]:
    return {one.xfer: one.round for one in sightings if one.xfer and one.round is not None}


def _number(one: Sighting, numbers: dict[str, int]) -> int | None:
    """Return a frame's round; a receipt names only its transfer."""
    return one.round if one.round is not None else numbers.get(one.xfer or "")


def _moments(seen: list[Sighting], following: list[Sighting]) -> list[float] | None:
    given = _firsts(seen, _is(Assignment.TYPE, Kind.TASK, at_gateway=True))
    fanned = _firsts(seen, _is(Assignment.TYPE, Kind.TASK, at_gateway=False))
    taken = _firsts(seen, _is(JobStatus.TYPE, Kind.JOB_STATUS, at_gateway=False))
    offered = _firsts(seen, _is(UpdateManifest.TYPE, Kind.MANIFEST, at_gateway=False))
    passed_on = _firsts(seen, _is(UpdateManifest.TYPE, Kind.MANIFEST, at_gateway=True))
    receipted = _firsts(seen, _is(Receipt.TYPE, Kind.RECEIPT, at_gateway=True))
    given_next = _firsts(following, _is(Assignment.TYPE, Kind.TASK, at_gateway=True))
    stages = (given, fanned, taken, offered, passed_on, receipted, given_next)
    if not all(stages) or not len(offered) == len(passed_on) == len(receipted):
        return None
    return [
        min(one.made_s for one in given),
        max(one.at_s for one in given),
        max(one.at_s for one in fanned),
        max(one.made_s for one in taken),
        max(one.at_s for one in taken),
        max(one.made_s for one in offered),
        max(one.at_s for one in offered),
        max(one.at_s for one in passed_on),
        max(one.made_s for one in receipted),
        max(one.at_s for one in receipted),
        min(one.made_s for one in given_next),
    ]


def _durations(moments: list[float]) -> tuple[float, ...]:
    """Return the steps between moments; one that another stage overtook takes no time."""
    end_s = moments[-1]
    reached_s = moments[0]
    durations = []
    for moment_s in moments[1:]:
        upto_s = min(max(moment_s, reached_s), end_s)
        durations.append(upto_s - reached_s)
        reached_s = upto_s
    return tuple(durations)


def _firsts(seen: Iterable[Sighting], is_wanted: Callable[[Sighting], bool]) -> list[Sighting]:
    """Return the first of each sender, or transfer, on each topic: repetitions do not count."""
    found: dict[tuple[str, str, str | None], Sighting] = {}
    for one in seen:
        if is_wanted(one):
            found.setdefault((one.topic, one.src, one.xfer), one)
    return list(found.values())


def _is(frame_type: str, kind: Kind, *, at_gateway: bool) -> Callable[[Sighting], bool]:
    def is_wanted(one: Sighting) -> bool:
        topic = _topic(one)
        return (
            one.type == frame_type
            and topic is not None
            and topic.kind is kind
            and topic.address is not None
            and topic.address.is_gateway == at_gateway
        )

    return is_wanted


def _topic(one: Sighting) -> Topic | None:
    try:
        return parse(one.topic)
    except WireError:
        return None


def _place(one: Sighting) -> str:
    topic = _topic(one)
    if topic is None or topic.address is None:
        return "persons"
    ends = "central-gateway" if topic.address.is_gateway else "gateway-device"
    down = topic.kind in {Kind.TASK, Kind.NEED, Kind.RECEIPT, Kind.BLOCK, Kind.CONTROL}
    return f"{ends} {'down' if down else 'up'}"
