"""A task's training graph in a region: fetched once, multicast once, kept while it is named."""

import sqlite3

import pytest
from gateway_rig import GATEWAY, MIN_CHUNK_BYTES, body, large, sha, take

from regional_gateway.adapters.store import MIGRATIONS, SCHEMA, SCHEMA_VERSION, SqliteStore
from schemas.limits import MIB
from schemas.messages import Get
from schemas.topics import Kind, Topic
from transport.database import open_database

GRAPH = large(5 * MIN_CHUNK_BYTES - 3, seed=1)
MODEL = large(6 * MIN_CHUNK_BYTES, seed=2)
INLINE = large(MIN_CHUNK_BYTES + 3, seed=3)


@pytest.fixture
def rig(make_rig):
    return make_rig().connect()


def assign(rig, cohort, number=0, graph=GRAPH, **more):
    rig.from_central(Kind.TASK, rig.central.assignment(cohort, number, graph=graph, **more))


def blocks(rig, data):
    """Return (node, k, payload) of the blocks of one object that went down since the last call."""
    rig.settle()
    found = [m for m in rig.down.sent if m.topic.kind is Kind.BLOCK]
    own = [m for m in found if m.topic.sha16 == sha(data)[:16]]
    rig.down.sent[:] = [m for m in rig.down.sent if m not in own]
    return [(m.topic.address.node, m.topic.k, m.payload) for m in own]


def asked(rig):
    return {body(m, Get).sha256 for m in take(rig.up, Kind.GET)}


def give(rig, *objects):
    """Answer every question for these objects until there is none."""
    while gets := take(rig.up, Kind.GET):
        for message in gets:
            get = body(message, Get)
            data = next(one for one in objects if sha(one) == get.sha256)
            for k in get.want:
                part = data[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
                topic = Topic(Kind.BLOCK, GATEWAY, sha16=sha(data)[:16], k=k)
                rig.arrive("uplink", topic, part)
        rig.settle()


def test_model_and_graph_are_fetched_and_multicast_each_once(rig):
    devices = rig.born(*(f"d-{i}" for i in range(4)))
    assign(rig, [d.name for d in devices], model=MODEL)
    give(rig, MODEL, GRAPH)
    for data in (MODEL, GRAPH):
        found = blocks(rig, data)
        assert {node for node, _, _ in found} == {"all"}
        assert b"".join(part for _, _, part in sorted(found, key=lambda one: one[1])) == data
    rig.pass_time(30)
    assert asked(rig) == set()


def test_the_next_round_fetches_its_model_and_not_the_graph(rig):
    rig.born("a", "b")
    assign(rig, ("a", "b"), model=MODEL)
    give(rig, MODEL, GRAPH)
    blocks(rig, GRAPH)
    newer = large(6 * MIN_CHUNK_BYTES, seed=9)
    assign(rig, ("a", "b"), 1, model=newer)
    assert asked(rig) == {sha(newer)}
    assert blocks(rig, GRAPH) == []


def test_a_device_gets_the_graph_that_it_asks_for(rig):
    a, _ = rig.born("a", "b")
    assign(rig, ("a",), model=INLINE)
    rig.from_device(a, Kind.GET, a.get(sha(GRAPH), (0, 4)))  # before the gateway has it
    assert blocks(rig, GRAPH) == []
    give(rig, GRAPH)
    found = {k: part for node, k, part in blocks(rig, GRAPH) if node == "a"}
    assert found[4] == GRAPH[4 * MIN_CHUNK_BYTES :]
    rig.from_device(a, Kind.GET, a.get(sha(GRAPH), (1,)))
    assert [(node, k) for node, k, _ in blocks(rig, GRAPH)] == [("a", 1)]


def test_an_inline_model_ends_where_the_graphs_digests_begin(rig):
    (a,) = rig.born("a")
    assign(rig, ("a",), model=INLINE)
    rig.from_device(a, Kind.GET, a.get(sha(INLINE), (0, 1)))
    assert b"".join(part for _, _, part in blocks(rig, INLINE)) == INLINE


def test_a_graph_stays_while_an_assignment_names_it_and_is_then_one_of_many(make_rig):
    rig = make_rig(cache_bytes=MIB).connect()
    rig.born("a")
    folder = rig.settings.state_dir / "models" / "objects"
    graph, other, *models = (large(MIB // 2 + 1, seed=seed) for seed in range(5))
    for number, model in enumerate(models[:2]):
        assign(rig, ("a",), number, graph, model=model)
        give(rig, graph, model)
    assert {path.name for path in folder.iterdir()} == {sha(models[1]), sha(graph)}
    assign(rig, ("a",), 2, other, model=models[2])
    give(rig, other, models[2])
    assert {path.name for path in folder.iterdir()} == {sha(models[2]), sha(other)}


def test_a_crash_in_the_middle_of_a_graph_asks_only_for_the_rest(rig):
    rig.born("a", "b")
    assign(rig, ("a", "b"), model=INLINE)
    topic = Topic(Kind.BLOCK, GATEWAY, sha16=sha(GRAPH)[:16], k=0)
    rig.arrive("uplink", topic, GRAPH[:MIN_CHUNK_BYTES])
    rig.settle()
    again = rig.restart()
    again = again or rig
    wanted = {k for m in take(again.up, Kind.GET) for k in body(m, Get).want}
    assert wanted
    assert 0 not in wanted


@pytest.mark.parametrize("change", ["short", "long"])
def test_a_tail_that_does_not_fit_model_and_graph_is_refused(rig, change):
    frame = rig.central.assignment(("a",), graph=GRAPH, model=INLINE)
    raw = frame[:-32] if change == "short" else frame + b"x" * 32
    rig.from_central(Kind.TASK, raw)
    assert rig.parts.store.assignments() == []


def test_a_database_of_version_1_takes_assignments_with_graphs(tmp_path):
    path = tmp_path / "gateway.db"
    open_database(path, SCHEMA.replace("    graph TEXT,\n    deltas TEXT,\n", ""), 1).close()
    with pytest.raises(sqlite3.OperationalError, match="no such column: graph"):
        SqliteStore(open_database(path, SCHEMA, 1)).assignments()
    connection = open_database(path, SCHEMA, SCHEMA_VERSION, MIGRATIONS)
    assert SqliteStore(connection).assignments() == []
    connection.close()
