"""Deltas in a region: the newest is fetched and multicast, the rest goes to who asks for it."""

import sqlite3

import pytest
from gateway_rig import (
    GATEWAY,
    MIN_CHUNK_BYTES,
    REGION,
    START_S,
    ZERO,
    body,
    large,
    sha,
    take,
)

from regional_gateway.adapters.store import MIGRATIONS, SCHEMA, SCHEMA_VERSION, SqliteStore
from schemas.messages import Assignment, Get, ModelDelta, TrainingPlan
from schemas.tasks import Downlink
from schemas.topics import Kind, Topic
from transport.database import open_database
from transport.objects import describe

MODEL = large(6 * MIN_CHUNK_BYTES, seed=1)
OLD = large(2 * MIN_CHUNK_BYTES + 7, seed=2)
NEW = large(3 * MIN_CHUNK_BYTES - 1, seed=3)
SMALL = large(500, seed=4)
PLAN = TrainingPlan(
    model="m",
    input_shape=(2,),
    classes=2,
    parameters=1,
    layout_sha256=ZERO,
    data="d",
    codec="int8",
    downlink=Downlink(codec="topk"),
)


@pytest.fixture
def rig(make_rig):
    return make_rig().connect()


def assignment(rig, cohort, number=3, deltas=(OLD, NEW), model=MODEL):
    """Return a frame whose deltas lead over models that nobody here has to ``model``."""
    manifest, tail = describe(model, MIN_CHUNK_BYTES)
    names = [*(f"{index:064x}" for index in range(len(deltas))), manifest.sha256]
    steps = []
    for index, data in enumerate(deltas):
        is_newest = index == len(deltas) - 1
        part = describe(data, MIN_CHUNK_BYTES, inline=is_newest and len(data) < MIN_CHUNK_BYTES)
        tail += part[1]
        steps.append(ModelDelta(base=names[index], result=names[index + 1], object=part[0]))
    message = Assignment(
        task="t-1",
        round=number,
        region=REGION,
        cohort=tuple(cohort),
        deadline=START_S + 600,
        plan=PLAN,
        model=manifest,
        deltas=tuple(steps),
    )
    return rig.central.frames.frame(message, task="t-1", round_number=number, tail=tail)


def assign(rig, cohort, **more):
    rig.from_central(Kind.TASK, assignment(rig, cohort, **more))


def blocks(rig, data):
    """Return (node, k, payload) of the blocks of one object that went down since the last call."""
    rig.settle()
    found = [m for m in rig.down.sent if m.topic.kind is Kind.BLOCK]
    own = [m for m in found if m.topic.sha16 == sha(data)[:16]]
    rig.down.sent[:] = [m for m in rig.down.sent if m not in own]
    return [(m.topic.address.node, m.topic.k, m.payload) for m in own]


def give(rig, *objects):
    """Answer every question for these objects until there is none; return what was asked for."""
    asked = set()
    while gets := take(rig.up, Kind.GET):
        for message in gets:
            get = body(message, Get)
            asked.add(get.sha256)
            data = next((one for one in objects if sha(one) == get.sha256), b"")
            for k in get.want if data else ():
                part = data[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
                topic = Topic(Kind.BLOCK, GATEWAY, sha16=sha(data)[:16], k=k)
                rig.arrive("uplink", topic, part)
        rig.settle()
    return asked


def ask(rig, device, data, *want):
    rig.from_device(device, Kind.GET, device.get(sha(data), want))


def test_only_the_newest_delta_is_fetched_and_it_is_multicast_once(rig):
    devices = rig.born("a", "b", "c")
    assign(rig, [one.name for one in devices])
    assert give(rig, NEW, OLD, MODEL) == {sha(NEW)}
    found = blocks(rig, NEW)
    assert {node for node, _, _ in found} == {"all"}
    assert b"".join(part for _, _, part in sorted(found, key=lambda one: one[1])) == NEW
    rig.pass_time(30)
    assert give(rig) == set()
    assert blocks(rig, MODEL) == blocks(rig, OLD) == []


@pytest.mark.parametrize("wanted", [MODEL, OLD], ids=["key frame", "older delta"])
def test_what_one_device_asks_for_is_fetched_and_goes_to_it_alone(rig, wanted):
    a, *_ = rig.born("a", "b", "c", "d", "e")
    assign(rig, ("a", "b", "c", "d", "e"))
    give(rig, NEW)
    ask(rig, a, wanted, 0, 1)
    assert blocks(rig, wanted) == []
    assert give(rig, wanted) == {sha(wanted)}
    assert [(node, k) for node, k, _ in blocks(rig, wanted)] == [("a", 0), ("a", 1)]
    ask(rig, a, wanted, 1)
    assert [(node, k) for node, k, _ in blocks(rig, wanted)] == [("a", 1)]
    assert give(rig, wanted) == set()


def test_a_key_frame_that_half_of_the_cohort_asks_for_is_multicast(rig):
    a, b, *_ = rig.born("a", "b", "c", "d")
    assign(rig, ("a", "b", "c", "d"))
    give(rig, NEW)
    ask(rig, a, MODEL, 0)
    ask(rig, b, MODEL, 0)
    give(rig, MODEL)
    found = blocks(rig, MODEL)
    assert {node for node, _, _ in found} == {"all"}
    assert len(found) == 6


def test_a_gateway_that_is_killed_goes_on_with_the_key_frame_when_it_is_asked_again(rig):
    (a,) = rig.born("a")
    assign(rig, ("a",))
    give(rig, NEW)
    ask(rig, a, MODEL, 0)
    take(rig.up, Kind.GET)
    rig.arrive(
        "uplink", Topic(Kind.BLOCK, GATEWAY, sha16=sha(MODEL)[:16], k=0), MODEL[:MIN_CHUNK_BYTES]
    )
    rig.settle()
    rig.restart()
    assert give(rig, NEW) == set()
    ask(rig, a, MODEL, 0)
    wanted = {k for m in rig.up.sent if m.topic.kind is Kind.GET for k in body(m, Get).want}
    assert 0 not in wanted
    give(rig, MODEL)
    assert [(node, k) for node, k, _ in blocks(rig, MODEL)] == [("a", 0)]


def test_an_inline_delta_is_not_fetched_and_is_cut_into_blocks_for_who_lost_it(rig):
    (a,) = rig.born("a")
    assign(rig, ("a",), deltas=(OLD, SMALL))
    assert give(rig) == set()
    ask(rig, a, SMALL, 0, 1)
    assert blocks(rig, SMALL) == [("a", 0, SMALL)]
    ask(rig, a, OLD, 2)
    assert give(rig, OLD) == {sha(OLD)}
    assert blocks(rig, OLD) == [("a", 2, OLD[2 * MIN_CHUNK_BYTES :])]


def test_the_row_of_an_assignment_keeps_its_deltas_over_a_restart(rig):
    rig.born("a")
    assign(rig, ("a",))
    (before,) = rig.parts.store.assignments()
    rig.restart()
    (row,) = rig.parts.store.assignments()
    assert row == before
    assert [one.object.sha256 for one in row.deltas] == [sha(OLD), sha(NEW)]
    assert [one.sha256 for one in row.eager] == [sha(NEW)]


def test_the_next_round_finds_the_older_delta_in_the_cache(rig):
    a, _ = rig.born("a", "b")
    assign(rig, ("a", "b"))
    give(rig, NEW)
    newer, model = large(2 * MIN_CHUNK_BYTES, seed=8), large(6 * MIN_CHUNK_BYTES, seed=9)
    assign(rig, ("a", "b"), number=4, deltas=(OLD, NEW, newer), model=model)
    assert give(rig, newer) == {sha(newer)}
    blocks(rig, NEW)
    ask(rig, a, NEW, 0)
    assert [(node, k) for node, k, _ in blocks(rig, NEW)] == [("a", 0)]
    assert give(rig) == set()


@pytest.mark.parametrize("cut", [slice(None, -32), slice(None, None)])
def test_a_tail_that_does_not_fit_the_deltas_is_refused(rig, cut):
    frame = assignment(rig, ("a",))
    raw = frame[cut] if cut.stop else frame + b"x" * 32
    rig.from_central(Kind.TASK, raw)
    assert rig.parts.store.assignments() == []


def test_a_database_of_version_2_takes_assignments_with_deltas(tmp_path):
    path = tmp_path / "gateway.db"
    open_database(path, SCHEMA.replace("    deltas TEXT,\n", ""), 2).close()
    with pytest.raises(sqlite3.OperationalError, match="no such column: deltas"):
        SqliteStore(open_database(path, SCHEMA, 2)).assignments()
    connection = open_database(path, SCHEMA, SCHEMA_VERSION, MIGRATIONS)
    assert SqliteStore(connection).assignments() == []
    connection.close()
