"""A task's training graph on a device: pulled when it is needed, once for all rounds."""

import numpy as np
import pytest
from device_agent_bench import (
    LARGE,
    OWN,
    SMALL,
    TASK,
    Bench,
    body_of,
    model_file,
    of_kind,
    offered,
    plan_for,
    states,
)

from device_agent.core.graphs import graphs_to_keep
from device_agent.core.job import JobKey
from schemas.envelope import decode_frame
from schemas.errors import PayloadError
from schemas.messages import ControlNote, Get, JobRef, NoJob, ObjectManifest
from schemas.tasks import Requirements
from schemas.topics import Kind, Topic
from transport.objects import describe

GRAPH = np.random.default_rng(1).bytes(300_000)
OTHER = np.random.default_rng(2).bytes(200_000)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    made.machine.backends = ("onnx", "torch")
    return made


def assign(  # noqa: PLR0913 - each names one part of an assignment
    bench, number=1, graph=GRAPH, *, layout=SMALL, task=TASK, requires=None, **training
):
    """Send an assignment with a graph, or with none."""
    plan = plan_for(layout, **training)
    if requires is not None:
        plan = plan.model_copy(update={"requires": Requirements(**requires)})
    manifest, digests = describe(graph) if graph else (None, b"")
    seed = number
    body, tail = bench.assignment(model_file(layout, seed), plan, number, task, graph=manifest)
    return bench.send(Kind.TASK, body, writer=bench.central, tail=tail + digests)


def asked(sent):
    return {body_of(message, Get).sha256 for message in of_kind(sent, Kind.GET)}


def give(bench, data):
    manifest, _ = describe(data)
    return [out for k in range(manifest.chunks) for out in bench.block(data, k)]


def sha(data):
    return describe(data)[0].sha256


def test_a_job_waits_for_its_graph_although_its_model_came_inline(bench):
    assign(bench)
    assert bench.state() == "downloading"
    assert asked(bench.wait(2)) == {sha(GRAPH)}
    assert bench.worker.work is None
    assert "training" in states(give(bench, GRAPH))
    assert bench.worker.work.backend == "onnx"
    assert bench.worker.work.graph_sha256 == sha(GRAPH)


def test_a_large_model_and_a_graph_are_pulled_together_and_both_awaited(bench):
    assign(bench, layout=LARGE)
    assert asked(bench.wait(2)) == {sha(GRAPH), sha(model_file(LARGE, 1))}
    give(bench, GRAPH)
    assert bench.state() == "downloading"
    give(bench, model_file(LARGE, 1))
    assert bench.state() == "training"


def test_the_next_round_finds_the_graph_here(bench):
    assign(bench)
    give(bench, GRAPH)
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    assert bench.objects.has(sha(GRAPH))
    assign(bench, 2)
    assert bench.state(2) == "training"
    assert asked(bench.wait(5)) == set()


def test_the_next_round_after_a_restart_finds_it_too(bench):
    assign(bench)
    give(bench, GRAPH)
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    bench = bench.reborn()
    bench.machine.backends = ("onnx",)
    assign(bench, 2)
    assert bench.state(2) == "training"


def test_a_killed_device_goes_on_with_the_graph_that_it_began_to_pull(bench):
    assign(bench)
    bench.wait(2)
    bench.block(GRAPH, 0)
    bench.connection.execute("SELECT 1")
    record = bench.store.get(JobKey(TASK, 1))
    assert (record.graph.sha256, len(record.graph_digests)) == (sha(GRAPH), 64)
    bench = bench.reborn(connect=False)
    bench.machine.backends = ("onnx",)
    bench.agent.resume(bench.now_s)
    bench.agent.after_commit()
    assert bench.state() == "downloading"
    bench.block(GRAPH, 1)
    assert bench.state() == "training"


@pytest.mark.parametrize(
    ("changes", "backends"),
    [
        ({}, ("torch", "onnx")),
        ({"requires": {"backend": "torch"}}, ("onnx", "torch")),
        ({"epochs": 0}, ("onnx", "torch")),
        ({"graph": None}, ("onnx", "torch")),
    ],
    ids=["torch first", "torch demanded", "drill", "no graph"],
)
def test_who_does_not_train_with_a_graph_does_not_ask_for_it(bench, changes, backends):
    bench.machine.backends = backends
    assign(bench, **changes)
    assert bench.state() == "training"
    assert bench.worker.work.graph_sha256 is None
    assert bench.worker.work.backend == ("drill" if "epochs" in changes else "torch")
    assert asked(bench.wait(5)) == set()


def test_torch_needs_the_graph_for_what_is_frozen_in_it(bench):
    bench.machine.backends = ("torch",)
    assign(bench, frozen=("w",))
    assert bench.state() == "downloading"
    give(bench, GRAPH)
    assert bench.worker.work.backend == "torch"
    assert bench.worker.work.graph_sha256 == sha(GRAPH)


def test_a_device_that_can_only_train_with_graphs_refuses_a_job_without_one(bench):
    bench.machine.backends = ("onnx",)
    assign(bench, graph=None)
    cause = bench.store.get(JobKey(TASK, 1)).job.cause
    assert (cause.code, cause.reason) == ("model", "backend: onnx needs a training graph")


def test_a_model_that_no_code_here_knows_is_trained_by_its_graph(bench):
    plan = plan_for(SMALL).model_copy(update={"model": "somebodys-own"})
    manifest, digests = describe(GRAPH)
    body, tail = bench.assignment(model_file(SMALL), plan, graph=manifest)
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail + digests)
    give(bench, GRAPH)
    assert bench.state() == "training"


def test_a_graph_that_is_not_what_its_manifest_says_fails_the_job(bench):
    manifest, digests = describe(GRAPH)
    lying = manifest.model_copy(update={"sha256": "0" * 64})
    body, tail = bench.assignment(model_file(SMALL), plan_for(SMALL), graph=lying)
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail + digests)
    for k in (0, 1):
        data = GRAPH[k * manifest.chunk_bytes : (k + 1) * manifest.chunk_bytes]
        bench.arrive(topic_of("0" * 16, k), data)
    cause = bench.store.get(JobKey(TASK, 1)).job.cause
    assert cause.code == "model"


def topic_of(sha16, k):
    return Topic(Kind.BLOCK, OWN, sha16=sha16, k=k)


def test_a_tail_without_the_graphs_digests_is_refused(bench):
    manifest, _ = describe(GRAPH)
    body, tail = bench.assignment(model_file(SMALL), plan_for(SMALL), graph=manifest)
    with pytest.raises(PayloadError, match="tail: "):
        bench.send(Kind.TASK, body, writer=bench.central, tail=tail)


def test_a_cancelled_tasks_graph_goes(bench):
    assign(bench)
    give(bench, GRAPH)
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    assert not bench.objects.has(sha(GRAPH))


def test_graphs_of_the_newest_jobs_are_kept_as_far_as_they_fit():
    graphs = [ObjectManifest(sha256=f"{n:064x}", size=100) for n in range(5)]
    assert graphs_to_keep(graphs, 250) == {graphs[0].sha256, graphs[1].sha256}
    assert graphs_to_keep(graphs, 0) == frozenset()
    assert len(graphs_to_keep(graphs, 10_000)) == 5


def test_a_graph_that_is_too_large_does_not_push_out_older_ones():
    small, large, other = (ObjectManifest(sha256=c * 64, size=n) for c, n in
                           (("a", 100), ("b", 1000), ("c", 100)))  # fmt: skip
    assert graphs_to_keep([small, large, other], 250) == {small.sha256, other.sha256}
    assert graphs_to_keep([large], 250) == frozenset()


def test_another_tasks_graph_does_not_push_out_one_that_fits(bench):
    for number, (task, graph) in enumerate((("t-1", GRAPH), ("t-2", OTHER))):
        assign(bench, number + 1, graph, task=task)
        give(bench, graph)
        manifest, _ = offered(bench.train())
        bench.receipt(manifest, "accepted")
    assert bench.objects.has(sha(GRAPH))
    assert bench.objects.has(sha(OTHER))


def answer(bench, sent, *keep):
    """Answer the newest question: these jobs are wanted, and no other."""
    header = decode_frame(of_kind(sent, Kind.NEXT)[-1].payload).header
    bench.send(Kind.TASK, NoJob(keep=keep), corr=header.id)


def test_a_job_that_waits_for_its_graph_asks_soon_whether_it_is_still_wanted(bench):
    assign(bench)
    answer(bench, bench.sent, JobRef(task=TASK, round=1))
    assert bench.state() == "downloading"
    sent = bench.wait(15)
    assert len(of_kind(sent, Kind.NEXT)) >= 1
    answer(bench, sent)
    assert bench.state() == "superseded"
    assert of_kind(bench.wait(200), Kind.NEXT) == []
