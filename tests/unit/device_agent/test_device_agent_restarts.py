"""A device that is killed at any point sends the same bytes, once."""

import pytest
from device_agent_bench import (
    LARGE,
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

from device_agent.core.job import JobKey
from device_agent.core.jobs import MAX_STARTS
from schemas.messages import DeviceState, Get
from schemas.topics import Kind
from transport.database import transaction
from transport.parking import Parking


def undisturbed(path, layout, **training):
    """Return the manifest and tail of an update whose device was never killed."""
    bench = Bench(path)
    bench.assign(layout, **training)
    give_blocks(bench, layout)
    return offered(bench.train())


def give_blocks(bench, layout):
    if layout is LARGE:
        bench.block(model_file(LARGE), 0)
        bench.block(model_file(LARGE), 1)


def kill_while_training(bench, layout):
    give_blocks(bench, layout)
    return bench.reborn()


def kill_with_the_result_unhandled(bench, layout):
    give_blocks(bench, layout)
    bench.worker.result()
    return bench.reborn()


def kill_while_uploading(bench, layout):
    give_blocks(bench, layout)
    bench.train()
    return bench.reborn()


def kill_twice(bench, layout):
    give_blocks(bench, layout)
    again = bench.reborn(connect=False)
    again.worker.result()
    return again.reborn()


@pytest.mark.parametrize("layout", [SMALL, LARGE], ids=["inline", "chunked"])
@pytest.mark.parametrize("codec", ["raw-f32", "int8"])
@pytest.mark.parametrize(
    "kill",
    [
        kill_while_training,
        kill_with_the_result_unhandled,
        kill_while_uploading,
        kill_twice,
    ],
)
def test_a_killed_device_sends_the_same_bytes_once(tmp_path, layout, codec, kill):
    wanted, wanted_tail = undisturbed(tmp_path / "a", layout, codec=codec)
    bench = Bench(tmp_path / "b")
    bench.assign(layout, codec=codec)
    bench = kill(bench, layout)
    sent = bench.train() if bench.worker.work else bench.sent
    manifest, tail = offered(sent)
    assert (manifest, tail) == (wanted, wanted_tail)
    assert bench.outbox.count() == 1
    assert states(bench.receipt(manifest, "accepted")) == ["done"]
    assert bench.outbox.count() == 0


def test_a_killed_device_goes_on_with_the_chunks_that_it_has(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(LARGE)
    bench.block(model_file(LARGE), 0)
    bench = bench.reborn()
    assert bench.state() == "downloading"
    asked = of_kind([*bench.sent, *bench.wait(2)], Kind.GET)
    assert {body_of(ask, Get).want for ask in asked} == {(1,)}
    bench.block(model_file(LARGE), 1)
    assert bench.state() == "training"


def test_a_model_that_was_torn_by_a_power_cut_is_fetched_again(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(SMALL)
    model = bench.objects.path(bench.worker.work.model_sha256)
    model.write_bytes(model.read_bytes()[:-1])
    bench = bench.reborn()
    assert bench.state() == "downloading"
    bench.block(model_file(SMALL), 0)
    assert bench.state() == "training"


def test_a_restart_does_not_repeat_what_has_ended(tmp_path):
    bench = Bench(tmp_path)
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    bench = bench.reborn()
    assert bench.worker.work is None
    assert bench.state() == "done"
    assert states(bench.assign()) == ["done"]
    assert of_kind(bench.sent, Kind.MANIFEST) == []


def test_every_life_has_a_larger_boot(tmp_path):
    bench = Bench(tmp_path)
    first = body_of(bench.sent[0], DeviceState).boot
    second = body_of(bench.reborn().sent[0], DeviceState).boot
    assert second > first


def test_a_job_that_keeps_killing_the_program_is_given_up(tmp_path):
    bench = Bench(tmp_path)
    bench.assign()
    for _ in range(MAX_STARTS - 1):
        bench = bench.reborn()
        assert bench.worker.work is not None
    bench = bench.reborn()
    assert bench.worker.work is None
    assert bench.state() == "failed"


def test_a_restart_removes_files_that_nothing_needs(tmp_path):
    bench = Bench(tmp_path)
    stray = bench.objects.put(b"left over", durable=False)
    bench = bench.reborn()
    assert not bench.objects.has(stray)


def test_ended_jobs_are_forgotten_after_a_month_and_others_never(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(number=1)
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    bench.assign(number=2)
    bench.train()
    bench.now_s += 31 * 86_400
    bench = bench.reborn()
    assert bench.store.get(JobKey(TASK, 1)) is None
    assert bench.state(2) == "uploading"


def test_a_plan_is_stored_as_it_was_cut(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(epochs=3)
    record = bench.store.get(JobKey(TASK, 1))
    assert record.plan == plan_for(SMALL, epochs=3)
    assert not record.model.inline
    assert len(record.digests) == 32


def test_a_device_killed_with_every_chunk_on_disk_asks_for_none(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(LARGE)
    record = bench.store.get(JobKey(TASK, 1))
    part = bench.objects.part_path(record.model.sha256[:16], record.model.sha256)
    part.write_bytes(model_file(LARGE))
    bench = bench.reborn()
    assert bench.state() == "training"
    assert of_kind([*bench.sent, *bench.wait(5)], Kind.GET) == []


def test_jobs_that_ended_a_month_ago_are_forgotten(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(SMALL)
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    assert bench.state() == "done"
    bench.now_s += 29 * 86_400.0
    bench = bench.reborn()
    assert bench.state() == "done"
    bench.now_s += 2 * 86_400.0
    bench = bench.reborn()
    assert bench.store.get(JobKey(TASK, 1)) is None


def test_a_result_that_cannot_be_handled_fails_its_job_instead_of_holding_the_device(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(SMALL)
    result = bench.worker.result()
    with transaction(bench.connection):
        bench.agent.give_up(result, "KeyError: 'bug'", bench.now_s)
    bench.agent.after_commit()
    record = bench.store.get(JobKey(TASK, 1))
    assert record.job.state.value == "failed"
    assert "KeyError: 'bug'" in record.job.cause.reason
    assert bench.agent.give_up("a message", "why", bench.now_s) == []


def test_the_birth_is_told_anew_with_the_next_heartbeat_when_something_was_parked(tmp_path):
    bench = Bench(tmp_path)
    Parking(bench.connection).park(object(), "KeyError: 'x'", 3, bench.now_s)
    told = [body_of(one, DeviceState).parked for one in of_kind(bench.wait(60.0), Kind.STATE)]
    assert told == [1]
