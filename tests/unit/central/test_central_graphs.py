"""A task's training graph at central: stored with the first model, sent with each assignment."""

import numpy as np
import pytest

from central.adapters.restores import NAMED_OBJECTS
from central.service.ports import PrepareModel
from schemas.envelope import decode_frame
from schemas.limits import DEFAULT_CHUNK_BYTES
from schemas.messages import Assignment, Get
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import CentralRig, TinyModeler
from transport.objects import describe

LARGE_GRAPH = np.random.default_rng(0).bytes(2 * DEFAULT_CHUNK_BYTES + 5)


class GraphModeler(TinyModeler):
    graph = LARGE_GRAPH


class NoGraphModeler(TinyModeler):
    graph = None


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path, GraphModeler())
    yield made
    made.connection.close()


def begin(rig, **task):
    rig.fleet("a", "b", "c")
    rig.submit(task="t", codec="raw-f32", **{"rounds": 2, "cohort": 3, **task})
    rig.work()


def sent(rig):
    """Return every assignment that was sent, with its frame's tail."""
    frames = [decode_frame(out.payload) for out in rig.published if out.topic.kind is Kind.TASK]
    return [(f.body(Assignment), f.tail) for f in frames if f.header.type == Assignment.TYPE]


def serve(rig, job, *devices):
    for device in devices:
        assert rig.update(device, job).status == "accepted"
    rig.work()


def get(rig, sha256, want):
    frame = rig._writer("gw/eu", 1, rig.gateway_seq).frame(Get(sha256=sha256, want=want))
    return rig.arrive(Topic(Kind.GET, Address.of_gateway("eu")), frame)


def test_each_round_names_the_same_graph_and_its_tail_ends_with_the_graphs_digests(rig):
    begin(rig)
    serve(rig, rig.newest(), "a", "b")
    manifest, digests = describe(LARGE_GRAPH)
    assert {job.round for job, _ in sent(rig)} == {1, 2}
    for job, tail in sent(rig):
        assert job.graph == manifest
        assert job.fault(len(tail)) is None
        assert job.split(tail)[1] == digests
        assert job.model.inline


def test_a_graph_is_never_inline_however_small(tmp_path):
    rig = CentralRig(tmp_path)
    begin(rig)
    ((job, tail),) = sent(rig)
    assert not job.graph.inline
    assert len(job.split(tail)[1]) == 32
    rig.connection.close()


def test_gateways_pull_a_graph_by_its_chunks(rig):
    begin(rig)
    blocks = get(rig, rig.newest().graph.sha256, (0, 1, 2, 3))
    assert b"".join(out.payload for out in blocks) == LARGE_GRAPH


def test_a_repeated_preparation_gives_the_same_bytes(rig):
    begin(rig)
    before = rig.store.task("t").plan
    job = PrepareModel("t", rig.store.task("t").submission, before.data)
    event = rig.worker.jobs.work(job)
    assert (event.graph_sha256, event.graph_bytes) == (before.graph_sha256, len(LARGE_GRAPH))
    assert not list((rig.root / "scratch").iterdir())


def test_a_task_whose_graph_cannot_be_built_fails_before_any_round(tmp_path):
    rig = CentralRig(tmp_path, NoGraphModeler())
    begin(rig)
    status = rig.status("t")
    assert status.state == "failed"
    assert status.reason == "training graph: node Loop: not differentiable"
    assert sent(rig) == []
    rig.connection.close()


@pytest.mark.parametrize(
    "task", [{"requires": {"backend": "torch"}}, {"training": {"epochs": 0}}], ids=str
)
def test_a_task_that_needs_no_graph_goes_without_one(tmp_path, task):
    rig = CentralRig(tmp_path, NoGraphModeler())
    rig.gateway("eu")
    for device in ("a", "b"):
        rig.device(device, backends=("torch",))
    rig.submit(task="t", **task)
    rig.work()
    ((job, tail),) = sent(rig)
    assert job.graph is None
    assert job.fault(len(tail)) is None
    rig.connection.close()


def test_a_graph_larger_than_what_travels_fails_the_task(rig, monkeypatch):
    monkeypatch.setattr("central.adapters.jobs.MAX_GRAPH_BYTES", 1000)
    begin(rig)
    reason = f"training graph: {len(LARGE_GRAPH)} bytes, at most 1000 are allowed"
    assert rig.status("t").reason == reason


def test_two_tasks_share_a_graph_and_it_goes_with_the_last_of_them(tmp_path):
    rig = CentralRig(tmp_path, GraphModeler(), keep_task_s=10.0)
    begin(rig, rounds=1)
    sha256 = rig.newest().graph.sha256
    serve(rig, rig.newest(), "a", "b")
    rig.submit(task="u", codec="raw-f32", rounds=1, cohort=3)
    rig.work()
    rig.tick(4000)
    assert rig.store.task("t") is None
    assert rig.store.is_model(sha256)
    assert rig.objects.has(sha256)
    rig.control("u", "cancel")
    rig.tick(4000)
    assert rig.store.task("u") is None
    assert not rig.objects.has(sha256)
    assert get(rig, sha256, (0,)) == []
    rig.connection.close()


@pytest.mark.parametrize("lost", ["sha256", "graph_sha256"])
def test_what_a_purge_removed_before_a_row_named_it_is_prepared_again(rig, lost):
    rig.fleet("a", "b", "c")
    rig.submit(task="t", codec="raw-f32", rounds=1, cohort=3)
    prepared = rig.worker.jobs.work(rig.worker.waiting.pop())
    rig.objects.remove(getattr(prepared, lost))
    rig.event(prepared)
    assert sent(rig) == []
    rig.work()
    assert rig.newest().graph.sha256 == prepared.graph_sha256
    assert rig.newest().model.sha256 == prepared.sha256


def test_a_job_leaves_the_scratch_folders_of_another_owner_alone(rig):
    rig.fleet("a", "b", "c")
    rig.submit(task="t")
    other = rig.root / "scratch" / "newer"
    other.mkdir(parents=True)
    rig.work()
    assert list(other.parent.iterdir()) == [other]
    rig.restart()
    assert not other.exists()


def test_a_backup_holds_the_graph(rig):
    begin(rig)
    named = {sha256 for (sha256,) in rig.connection.execute(NAMED_OBJECTS)}
    assert rig.newest().graph.sha256 in named


def test_a_central_that_starts_again_goes_on_with_the_graph(rig):
    begin(rig)
    before = rig.newest().graph
    rig.restart()
    rig.published.clear()
    rig.fleet("a", "b", "c")
    rig.tick(60)
    assert rig.newest().graph == before


@pytest.mark.parametrize("how", ["cut", "removed"])
def test_a_damaged_graph_ends_its_task_by_name(rig, how):
    begin(rig)
    path = rig.objects.path(rig.newest().graph.sha256)
    path.write_bytes(LARGE_GRAPH[:-1]) if how == "cut" else path.unlink()
    rig.restart()
    rig.fleet("a", "b", "c")
    status = rig.status("t")
    assert status.state == "failed"
    assert status.reason.startswith("graph: object ")
    assert "damaged or missing" in status.reason
