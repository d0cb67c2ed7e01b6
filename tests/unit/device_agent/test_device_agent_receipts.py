"""Updates until their receipt, and what is kept of it."""

import pytest
from device_agent_bench import (
    DEVICE,
    EVERYONE,
    LARGE,
    SMALL,
    TASK,
    body_of,
    model_file,
    of_kind,
    offered,
    plan_for,
    statuses,
)

from device_agent.core.job import JobKey
from schemas.envelope import decode_frame
from schemas.messages import (
    ControlNote,
    JobRef,
    Need,
    Next,
    NoJob,
    Settlement,
)
from schemas.topics import Kind
from transport.events import Connected


def test_a_receipt_that_asks_for_patience_is_not_final(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "rejected", code="E_QUOTA", retry_after_s=30.0)
    assert bench.outbox.count() == 1
    assert of_kind(bench.wait(25), Kind.MANIFEST) == []
    assert of_kind(bench.wait(20), Kind.MANIFEST)


def test_a_receipt_of_another_object_is_ignored(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    assert bench.receipt(manifest, "accepted", sha256="0" * 64) == []
    assert bench.outbox.count() == 1


def test_a_repeated_receipt_is_harmless(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    assert bench.receipt(manifest, "accepted") == []
    assert bench.state() == "done"


@pytest.mark.parametrize("status", ["accepted", "duplicate", "late", "rejected"])
def test_what_the_final_receipt_says_is_kept_with_the_job(bench, status):
    bench.assign()
    manifest, _ = offered(bench.train())
    assert bench.store.get(JobKey(TASK, 1)).receipt is None
    bench.receipt(manifest, status)
    assert bench.store.get(JobKey(TASK, 1)).receipt == status


def test_a_receipt_is_kept_also_for_a_job_whose_task_ended_meanwhile(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    bench.receipt(manifest, "accepted")
    record = bench.store.get(JobKey(TASK, 1))
    assert (record.job.state.value, record.receipt) == ("done", "accepted")


def test_a_receipt_that_is_not_final_is_not_kept(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "held")
    assert bench.store.get(JobKey(TASK, 1)).receipt is None


def test_an_update_is_offered_until_it_is_receipted(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    repeats = of_kind(bench.wait(30), Kind.MANIFEST)
    assert 4 <= len(repeats) <= 8
    bench.receipt(manifest, "accepted")
    assert of_kind(bench.wait(300), Kind.MANIFEST) == []


def test_an_update_on_its_way_is_held_and_never_dropped(bench):
    bench.assign()
    bench.train()
    sent = bench.give(Connected("main"))
    (question,) = of_kind(sent, Kind.NEXT)
    assert body_of(question, Next).holding == (JobRef(task=TASK, round=1),)
    bench.send(Kind.TASK, NoJob(), corr=decode_frame(question.payload).header.id)
    assert bench.state() == "uploading"


@pytest.mark.parametrize("outcome", ["counted", "discarded"])
def test_what_became_of_an_update_is_recorded(bench, outcome):
    bench.assign()
    bench.train()
    settled = Settlement(task=TASK, round=1, **{outcome: (DEVICE,)})
    bench.send(Kind.TASK, NoJob(settled=(settled,)))
    assert bench.store.get(JobKey(TASK, 1)).settled == outcome
    assert bench.state() == "uploading"


def test_a_settlement_rides_with_an_assignment_for_others_too(bench):
    bench.assign()
    bench.train()
    body, tail = bench.assignment(
        model_file(SMALL),
        plan_for(SMALL),
        2,
        cohort=("d2",),
        settled=(Settlement(task=TASK, round=1, counted=("d2", DEVICE)),),
    )
    assert bench.send(Kind.TASK, body, writer=bench.central, address=EVERYONE, tail=tail) == []
    assert bench.store.get(JobKey(TASK, 1)).settled == "counted"
    assert bench.store.get(JobKey(TASK, 2)) is None


def test_two_rounds_with_the_same_bytes_keep_their_file_until_both_are_receipted(bench):
    for task in ("t-1", "t-2"):
        bench.assign(LARGE, task=task, epochs=0)
        for k in range(2):
            bench.block(model_file(LARGE), k)
        bench.train()
    first, second = (body for body, _ in _offers(bench))
    assert first.object.sha256 == second.object.sha256
    bench.receipt(first, "accepted")
    assert bench.objects.has(second.object.sha256)
    bench.receipt(second, "accepted")
    assert bench.objects.sizes() == {}


def test_an_update_whose_file_is_gone_fails_instead_of_being_offered(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    result = bench.worker.result()
    result.update.file.unlink()
    (status,) = statuses(bench.give(result))
    assert (status.state, status.code) == ("failed", "storage")
    assert bench.outbox.count() == 0


def test_the_update_of_a_stopped_job_leaves_no_file(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    result = bench.worker.result()
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    bench.give(result)
    assert not result.update.file.exists()


def test_a_need_for_a_file_that_is_gone_is_not_answered(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    manifest, _ = offered(bench.train())
    bench.objects.remove(manifest.object.sha256)
    need = Need(xfer=manifest.xfer, want=(0,))
    assert bench.send(Kind.NEED, need, xfer=manifest.xfer) == []


def _offers(bench):
    found = {}
    for message in of_kind(bench.sent, Kind.MANIFEST):
        found.setdefault(message.topic.xfer, offered([message]))
    return list(found.values())
