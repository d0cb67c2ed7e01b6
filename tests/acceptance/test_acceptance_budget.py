"""Rounds with an uplink budget on eight real devices: who is granted, and what passes the wire."""

import time

import pytest

from central.core.budget import Candidate, grant
from schemas.bids import decode_bid
from schemas.envelope import decode_frame
from schemas.messages import UpdateManifest
from schemas.topics import Kind, parse
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import Books, device_jobs
from tests.support.fleet_watch import Tap

DEVICES = tuple(f"d{number}" for number in range(1, 9))
#: Held back so that a round is certainly without its grants.
LAST = "d8"
GRANTED = 3
ROUNDS = 10
MAX_CLOCK = 2
#: A bid is forced after two, and three rounds are enough for eight forced ones.
LONGEST_WAIT = MAX_CLOCK + 3
#: Of the mlp with 32 hidden units on digits as float32: 2410 parameters and a header.
UPDATE_BYTES = 4 * 2410 + 12
BUDGET_BITS = 8 * (GRANTED * UPDATE_BYTES + UPDATE_BYTES // 2)
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory):
    shape = Shape(devices=DEVICES)
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        yield running


@pytest.fixture
def fleet(whole_fleet):
    whole_fleet.heal()
    return whole_fleet


@pytest.fixture
def tap(fleet):
    """See manifests and chunks on both ways: from devices, and from gateways."""
    opened = Tap(fleet.broker.port, "fl/v1/+/+/up/m/+", "fl/v1/+/+/up/c/+/+")
    yield opened
    opened.close()


def submit(fleet, name, **more):
    return fleet.submit(
        {
            "task": name,
            "model": "mlp",
            "model_params": {"hidden": [32]},
            "data": "digits",
            "rounds": ROUNDS,
            "min_clients": len(DEVICES),
            "codec": "raw-f32",
            "uplink_budget_bits": BUDGET_BITS,
            "budget_max_clock": MAX_CLOCK,
            "budget_bid_share": 1.0,
            **more,
        }
    )


def bids(tap, task):
    """Return the manifests that central was offered, by round and device."""
    found: dict[int, dict[str, UpdateManifest]] = {}
    for seen in list(tap.seen):
        if seen.topic.startswith("fl/v1/gw/") and parse(seen.topic).kind is Kind.MANIFEST:
            body = decode_frame(seen.payload or b"").body(UpdateManifest)
            if body.task == task:
                found.setdefault(body.round, {})[body.device] = body
    return found


def chunks(tap, *, by_gateways):
    """Return the bytes of each chunk that passed on one of the two ways, by transfer and number."""
    found = {}
    for seen in list(tap.seen):
        if seen.topic.startswith("fl/v1/gw/") is by_gateways and "/up/c/" in seen.topic:
            topic = parse(seen.topic)
            found[topic.xfer, topic.k] = seen.size
    return found


def wanted(offers):
    """Return the devices that the rule grants, from what they have bid."""
    candidates = []
    for offer in offers.values():
        bid = decode_bid(offer.bid)
        weighted = float(offer.num_examples) ** 2 * bid.gain
        candidates.append(Candidate(offer.device, weighted, bid.cost_bits, bid.clock))
    return set(grant(candidates, BUDGET_BITS, MAX_CLOCK))


def granted_devices(record):
    return {one.device for one in record.state.grants}


def test_exactly_what_is_granted_passes_the_wire_and_nobody_waits_for_ever(fleet, tap):
    task = submit(fleet, "budget")
    status = fleet.complete(task)
    assert (status["committed"], status["abandoned"], status["late"]) == (ROUNDS, 0, 0)
    tap.drain()
    kept = Books(fleet.state_dir("central"), task)
    kept.check()
    assert kept.recompute()[-1] == status["model_sha256"]
    offers = bids(tap, task)
    for record in kept.committed:
        offered = offers[record.state.number]
        assert set(offered) == set(DEVICES)
        assert all(not one.object.inline for one in offered.values())
        assert {one.object.size for one in offered.values()} == {UPDATE_BYTES}
        assert granted_devices(record) == wanted(offered)
        assert record.contributors == tuple(sorted(granted_devices(record)))
        assert len(record.contributors) == GRANTED
        assert (record.summary.bids, record.summary.granted) == (len(DEVICES), GRANTED)
    clocks = [
        decode_bid(one.bid).clock for by_round in offers.values() for one in by_round.values()
    ]
    assert MAX_CLOCK <= max(clocks) <= LONGEST_WAIT
    first = [record.contributors for record in kept.committed[: LONGEST_WAIT + 1]]
    assert {device for names in first for device in names} == set(DEVICES)

    granted = {one.xfer for record in kept.committed for one in record.state.grants}
    for by_gateways in (False, True):
        passed = chunks(tap, by_gateways=by_gateways)
        assert {xfer for xfer, _ in passed} == granted
        for record in kept.committed:
            own = {one.xfer for one in record.state.grants}
            size = sum(size for (xfer, _), size in passed.items() if xfer in own)
            assert size == GRANTED * UPDATE_BYTES
            assert 8 * size <= BUDGET_BITS
    for device in DEVICES:
        jobs = device_jobs(fleet.state_dir(device), task)
        assert set(jobs.values()) == {"done"}
    print(f"\ngranted: {first}")  # noqa: T201 - seen with -s


@pytest.mark.long
def test_central_killed_between_the_decision_and_the_pulls_grants_the_same(fleet, tap):
    task = submit(fleet, "decided")
    fleet.wait_for(task, lambda status: status["committed"] >= 1)
    fleet.freeze(LAST)
    number = wait_until(lambda: round_without(fleet, tap, task), "all others have bid")
    others = [device for device in DEVICES if device != LAST]
    fleet.freeze(*others)
    fleet.thaw(LAST)
    kept = Books(fleet.state_dir("central"), task)
    wait_until(lambda: kept.round(number).state.grants, "the decision")
    fleet.kill("central")
    decided = kept.round(number).state
    assert decided.phase.value == "reporting"
    assert len(decided.grants) == GRANTED
    pending = {one.device for one in decided.grants} - decided.reported - {LAST}
    assert pending  # their updates have not been pulled: their devices stand still
    fleet.thaw(*others)
    fleet.restart("central")
    status = fleet.complete(task)
    assert (status["committed"], status["abandoned"]) == (ROUNDS, 0)
    ended = kept.round(number)
    assert ended.state.grants == decided.grants
    assert ended.contributors == tuple(sorted(granted_devices(ended)))
    kept.check()
    tap.drain()
    granted = {one.xfer for record in kept.committed for one in record.state.grants}
    assert {xfer for xfer, _ in chunks(tap, by_gateways=True)} == granted


def round_without(fleet, tap, task):
    """Return the round in which all but the last device have bid; None: there is none yet."""
    newest = fleet.statuses(task)[-1]
    offered = bids(tap, task).get(newest.get("round"), {})
    is_held = newest.get("phase") == "bidding" and set(offered) == set(DEVICES) - {LAST}
    return newest["round"] if is_held else None


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.05)
    return found
