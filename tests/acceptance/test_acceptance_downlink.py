"""Compressed downlinks through a whole fleet: fewer bytes, the same accuracy, key frames on request."""

import pytest

from schemas.envelope import decode_frame
from schemas.messages import Assignment, Get
from schemas.topics import Kind, TopicError, parse
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import Books, device_jobs
from tests.support.fleet_watch import Tap
from updates.codecs import names

DEVICES = ("d1", "d2", "d3", "d4")
TASK = {
    "model": "mlp",
    "data": "digits",
    "rounds": 12,
    "min_clients": 4,
    "codec": "raw-f32",
    "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.1},
}
TOPK = {"codec": "topk", "codec_params": {"fraction": 0.05}}
#: Downlink, and how many times fewer bytes it must announce in a round that has a delta.
CHEAPER = {
    "topk": (TOPK, 15),
    "fp16": ({"codec": "fp16"}, 1.9),
    "stc": ({"codec": "stc", "codec_params": {"fraction": 0.05}}, 50),
    "ecsq": ({"codec": "ecsq"}, 15),
}
#: Those whose codec is installed.
HERE = [name for name in CHEAPER if name in names()]
ROUNDS_LONG = 40
#: Of a model of 0.8 MB whose difference as float16 is two chunks.
LARGE = {"model_params": {"hidden": [400, 400]}, "training": {"epochs": 1}}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    shape = Shape(devices=DEVICES, central=("--eval-data", "digits"))
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        yield running


@pytest.fixture
def tap(fleet):
    opened = Tap(fleet.broker.port, "fl/v1/#")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def plain(fleet):
    return fleet.complete(fleet.submit({**TASK, "task": "plain"}))


def messages(tap, kind):
    """Return (address, message) of each message of a kind that was seen."""
    tap.drain()
    found = []
    for seen in tap.seen:
        try:
            topic = parse(seen.topic)
        except TopicError:
            continue
        if topic.kind is kind:
            found.append((topic.address, seen))
    return found


def asked_by(tap, device):
    """Return the digests of all that a device asked its gateway for."""
    return {
        decode_frame(seen.payload).body(Get).sha256
        for address, seen in messages(tap, Kind.GET)
        if address.node == device
    }


def check_books(fleet, task):
    books = Books(fleet.state_dir("central"), task)
    books.check()
    assert books.recompute() == [record.model_sha256 for record in books.committed]
    return books


@pytest.mark.parametrize("name", HERE)
def test_a_compressed_downlink_costs_fewer_bytes_and_hardly_any_accuracy(fleet, plain, tap, name):
    downlink, factor = CHEAPER[name]
    status = fleet.complete(fleet.submit({**TASK, "task": name, "downlink": downlink}))
    books = check_books(fleet, name)
    whole, *rounds = [one["downlink_bytes"] for one in status["history"]]
    assert whole == plain["history"][0]["downlink_bytes"]
    assert max(rounds) * factor < whole, (rounds, whole)
    assert status["metrics"]["accuracy"] >= plain["metrics"]["accuracy"] - 0.02
    halfway = status["history"][-2]["metrics"]["accuracy"]
    assert halfway >= plain["history"][-2]["metrics"]["accuracy"] - 0.05
    bases = {record.base_model_sha256 for record in books.committed[1:]}
    for device in DEVICES:
        assert not asked_by(tap, device) & bases, "a key frame that nobody needed"
    print(  # noqa: T201 - seen with -s
        f"\n{name}: {sum(rounds) / len(rounds):.0f} bytes a round for {whole}, accuracy "
        f"{status['metrics']['accuracy']:.4f} ({plain['metrics']['accuracy']:.4f} without)"
    )


def test_one_message_tells_a_region_its_delta(fleet, tap):
    task = fleet.submit({**TASK, "task": "shared", "rounds": 4, "downlink": TOPK})
    fleet.complete(task)
    sent = [
        (address, decode_frame(seen.payload).body(Assignment))
        for address, seen in messages(tap, Kind.TASK)
        if decode_frame(seen.payload).header.type == Assignment.TYPE
    ]
    deltas = [one for address, one in sent if not address.is_gateway and one.round > 1]
    assert {one.round for one in deltas} == {2, 3, 4}
    assert all(one.deltas[-1].object.inline and not one.model.inline for one in deltas)
    shared = [address for address, one in sent if address.is_everyone and one.round > 1]
    assert len(shared) >= 2 * 3
    assert not [address for address, _ in messages(tap, Kind.BLOCK) if not address.is_gateway]


def test_a_delta_of_many_chunks_is_multicast_once_a_region_and_no_model_with_it(fleet, tap):
    task = fleet.submit(
        {**TASK, **LARGE, "task": "chunks", "rounds": 4, "downlink": {"codec": "fp16"}}
    )
    fleet.complete(task)
    rounds = check_books(fleet, task).committed
    down = [
        (address.region, seen.topic.split("/")[-2])
        for address, seen in messages(tap, Kind.BLOCK)
        if address.is_everyone
    ]
    for record in rounds[:-1]:
        assert record.delta_bytes > 256 * 1024
        for region in fleet.shape.regions:
            assert down.count((region, record.delta_sha256[:16])) == 2
    models = {record.base_model_sha256[:16] for record in rounds[1:]}
    assert not models & {sha16 for _, sha16 in down}
    assert rounds[-1].delta_sha256 is None


@pytest.mark.long
@pytest.mark.timeout(300)
def test_who_joins_late_or_loses_its_store_pulls_the_key_frame_and_goes_on(fleet, tap):
    late, robbed = "d4", "d3"
    fleet.kill(late)
    task = fleet.submit(
        {
            **TASK,
            "task": "rejoined",
            "rounds": ROUNDS_LONG,
            "min_clients": 2,
            "cohort": 4,
            "selection": "all",
            "downlink": TOPK,
        }
    )
    fleet.wait_for(task, lambda status: status["committed"] >= 3)
    fleet.kill(robbed)
    for path in (fleet.state_dir(robbed) / "objects").iterdir():
        path.unlink()
    fleet.restart(robbed, late)
    status = fleet.complete(task, within_s=200)
    assert status["committed"] == ROUNDS_LONG
    books = check_books(fleet, task)
    bases = {record.base_model_sha256: record.state.number for record in books.committed}
    for device in (late, robbed):
        pulled = sorted(bases[sha256] for sha256 in asked_by(tap, device) if sha256 in bases)
        assert [number for number in pulled if number > 3], device
        jobs = device_jobs(fleet.state_dir(device), task)
        assert "done" in [state for number, state in jobs.items() if number > 3], jobs
        assert len(pulled) < len([number for number in jobs if number > 3]), (pulled, jobs)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_gateway_and_a_device_that_are_killed_in_the_middle_cost_nothing(fleet):
    task = fleet.submit({**TASK, "task": "killed", "rounds": ROUNDS_LONG, "downlink": TOPK})
    for victim, committed in (("gateway-north", 3), ("d2", 8), ("central", 14)):
        fleet.wait_for(task, lambda status, least=committed: status["committed"] >= least)
        fleet.kill(victim)
        fleet.restart(victim)
    status = fleet.complete(task, within_s=200)
    assert status["committed"] == ROUNDS_LONG
    books = check_books(fleet, task)
    for row in books.contributions():
        assert row.settled == "counted" or row.reason
