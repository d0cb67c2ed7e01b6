import json
from dataclasses import replace

import numpy as np
import pytest

from central.adapters.stored_rounds import read_model
from central.service.orchestrator import Orchestrator
from central.service.ports import JobFailed
from central.service.records import Refusal
from schemas.envelope import decode_frame
from schemas.ids import transfer_id
from schemas.limits import MAX_COHORT
from schemas.messages import Get, JobRef, Need
from schemas.tasks import CentralState
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import (
    DIGITS,
    CentralRig,
    TinyModeler,
    assignments,
    no_jobs,
    receipts,
)
from transport.database import transaction
from transport.events import Connected
from transport.frames import FrameWriter
from transport.objects import describe
from updates.codecs import create, header
from updates.layout import Layout


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path)
    yield made
    made.connection.close()


def begin(rig, *devices, **task):
    """Submit a task and return the first assignment."""
    rig.fleet(*(devices or ("a", "b", "c")))
    rig.submit(task="t", codec="raw-f32", **{"rounds": 2, "cohort": len(devices) or 3, **task})
    rig.work()
    return rig.newest()


def model_of(rig, sha256):
    return read_model(rig.objects.path(sha256))[1]


def test_a_task_becomes_a_better_model_and_is_completed(rig):
    first = begin(rig)
    assert first.cohort == ("a", "b", "c")
    assert first.plan.input_shape == DIGITS.shape
    assert rig.update("a", first, 1.0, 30).status == "accepted"
    assert rig.update("b", first, 5.0, 10).status == "accepted"
    rig.work()
    second = rig.newest()
    assert second.round == 2
    assert second.model.sha256 != first.model.sha256
    assert model_of(rig, second.model.sha256).tolist() == [2.0] * 8
    rig.update("a", second, 1.0, 1)
    rig.update("c", second, 1.0, 1)
    rig.work()
    status = rig.status("t")
    assert status.state == "completed"
    assert status.committed == 2
    assert status.updates_accepted == 4
    assert [row.outcome for row in status.history] == ["committed", "committed"]
    assert model_of(rig, status.model_sha256).tolist() == [3.0] * 8
    assert (rig.root / "models" / "t" / "model.safetensors").read_bytes() == rig.objects.read(
        status.model_sha256
    )
    assert rig.modeler.exported == [rig.root / "models" / "t" / "model.onnx"]


def test_a_repeated_update_is_a_duplicate_and_counts_once(rig):
    job = begin(rig)
    assert rig.update("a", job).status == "accepted"
    assert rig.update("a", job).status == "duplicate"
    assert rig.status("t").reported == 1
    assert rig.status("t").updates_accepted == 1


def test_another_update_of_the_same_device_does_not_replace_the_first(rig):
    job = begin(rig)
    rig.update("a", job, 1.0)
    assert rig.update("a", job, 9.0).status == "duplicate"
    rig.update("b", job, 1.0)
    rig.work()
    assert model_of(rig, rig.newest().model.sha256).tolist() == [1.0] * 8


def test_an_update_for_a_closed_round_is_late_again_and_again(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    for _ in range(2):
        receipt = rig.update("c", job)
        assert (receipt.status, receipt.code) == ("late", "E_LATE")
        assert receipt.is_final
    assert rig.status("t").late == 1
    rig.work()
    assert rig.update("c", job).status == "late"
    assert rig.status("t").history[0].late == 1


def test_a_late_update_is_counted_with_its_round_also_after_the_round_has_ended(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.status("t").history[0].late == 0
    rig.update("c", job)
    assert rig.status("t").history[0].late == 1


@pytest.mark.parametrize(
    ("device", "changes", "code", "text"),
    [
        ("z", {}, "E_UNKNOWN_DEVICE", "'z' is not known in region 'eu'"),
        ("d", {}, "E_NOT_SELECTED", "not in the cohort of round 1"),
        ("a", {"round": 7}, "E_UNKNOWN_TASK", "no round 7 of 't'"),
        ("a", {"codec": "int8"}, "E_PLAN", "codec: 'int8', the round has 'raw-f32'"),
        ("a", {"layout_sha256": "0" * 64}, "E_PLAN", "layout_sha256"),
        ("a", {"base_model_sha256": "0" * 64}, "E_PLAN", "base_model_sha256"),
        ("a", {"xfer": "0" * 32}, "E_TRANSFER", "expected"),
        ("a", {"payload": b"short"}, "E_PAYLOAD", "5"),
    ],
)
def test_an_update_that_does_not_fit_is_rejected_in_words_and_the_task_goes_on(
    rig, device, changes, code, text
):
    job = begin(rig, "a", "b", "c")
    rig.device("d")
    receipt = rig.update(device, job, **changes)
    assert (receipt.status, receipt.code) == ("rejected", code)
    assert text in receipt.detail
    assert receipt.is_final
    for name in ("b", "c"):
        rig.update(name, job)
    rig.work()
    assert rig.newest().round == 2


def test_an_update_with_nan_is_rejected_and_spoils_nothing(rig):
    job = begin(rig)
    codec = create("raw-f32")
    good = codec.encode(np.ones(8, np.float32), rig.modeler.layout, np.random.default_rng(0))
    values = np.frombuffer(good[-32:], "<f4").copy()
    values[3] = np.nan
    body = values.tobytes()
    bad = header.pack(type(codec).number, 8, [body])
    receipt = rig.update("a", job, payload=bad)
    assert (receipt.status, receipt.code) == ("rejected", "E_NONFINITE")
    assert rig.status("t").reported == 0


def test_a_client_whose_update_is_rejected_is_replaced_and_may_yet_report(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("c")
    assert rig.update("a", job, codec="fp16").code == "E_PLAN"
    assert rig.newest().cohort == ("a", "b", "c")
    assert rig.update("a", job, 2.0).status == "accepted"
    assert rig.update("b", job).status == "accepted"


def test_an_update_in_another_devices_name_is_refused(rig):
    job = begin(rig)
    xfer, frame, _ = rig.update_frame("a", job)
    forged = frame.replace(b'"src":"a"', b'"src":"b"')
    receipt = rig.offer(xfer, forged)
    assert receipt.code == "E_IDENTITY"
    assert rig.update("a", job).status == "accepted"


def test_an_update_through_another_region_is_refused(rig):
    job = begin(rig)
    rig.gateway("us")
    assert rig.update("a", job, region="us").code == "E_UNKNOWN_DEVICE"


def test_clients_are_settled_as_counted_or_discarded_and_learn_it_with_the_next_round(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    settled = rig.newest().settled
    assert [(s.round, s.counted, s.discarded) for s in settled] == [(1, ("a", "b"), ())]


def test_central_restarted_in_a_round_goes_on_with_it(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.restart()
    assert assignments(rig.published[-6:])[-1].round == 1
    assert rig.update("a", job).status == "duplicate"
    rig.update("b", job)
    rig.work()
    assert rig.newest().round == 2


def test_central_killed_while_it_aggregates_gives_the_same_bits_after_a_restart(rig, tmp_path):
    job = begin(rig)
    rig.update("a", job, 0.3, 7)
    rig.update("b", job, 0.7, 9)
    lost = rig.worker.jobs.work(rig.worker.waiting.pop())
    rig.restart()
    rig.work()
    assert rig.newest().round == 2
    assert rig.newest().model.sha256 == lost.sha256


def test_central_killed_before_the_first_model_builds_it_after_the_restart(rig):
    rig.fleet("a", "b")
    rig.submit(task="t")
    rig.restart()
    rig.work()
    assert rig.newest().round == 1


def test_central_killed_before_a_model_was_evaluated_evaluates_it_after_the_restart(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5, 0.6)
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    rig.event(rig.worker.jobs.work(rig.worker.waiting.pop()))
    assert len(rig.worker.waiting) == 1
    rig.restart()
    rig.work()
    assert rig.newest().round == 2
    assert rig.status("t").metrics == {"accuracy": 0.5}
    rig.connection.close()


def test_a_target_that_is_met_ends_the_task_early(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5, 0.95, 0.99)
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig, rounds=9, target={"metric": "accuracy", "value": 0.9})
    for _ in range(2):
        rig.update("a", job)
        rig.update("b", job)
        rig.work()
        job = rig.newest()
    status = rig.status("t")
    assert status.state == "completed"
    assert status.committed == 2
    assert [row.metrics["accuracy"] for row in status.history] == [0.5, 0.95]
    rig.connection.close()


def test_an_evaluation_that_fails_does_not_end_the_task(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5,)
    modeler.evaluate = None
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    rig.event(rig.worker.jobs.work(rig.worker.waiting.pop()))
    rig.event(JobFailed(rig.worker.waiting.pop(), "no torch"))
    assert rig.newest().round == 2
    assert rig.status("t").history[0].metrics == {}
    rig.connection.close()


def test_a_strategy_that_raises_abandons_the_round_and_the_model_stays(rig):
    job = begin(rig, strategy="broken")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    again = rig.newest()
    assert again.round == 2
    assert again.model.sha256 == job.model.sha256
    assert rig.status("t").reason is None or "abandoned" in rig.status("t").reason
    assert rig.status("t").history[0].reason == "strategy failed: RuntimeError: cannot"
    assert again.settled[0].discarded == ("a", "b")


def test_a_users_own_strategy_is_used_by_name(rig):
    job = begin(rig, strategy="mine", strategy_params={"server_lr": 0.5})
    rig.update("a", job, 1.0)
    rig.update("b", job, 1.0)
    rig.work()
    assert model_of(rig, rig.newest().model.sha256).tolist() == [0.5] * 8


def test_a_model_that_cannot_be_built_for_the_data_fails_the_task(rig):
    rig.fleet("a", "b")
    rig.submit(task="t", model_params={"broken": True})
    rig.work()
    status = rig.status("t")
    assert (status.state, status.reason) == ("failed", "model_params: broken")


def test_too_few_devices_wait_with_both_numbers_and_fail_after_the_time(rig):
    rig.fleet("a")
    rig.submit(task="t", min_clients=3, selection_timeout_s=60)
    status = rig.status("t")
    assert status.state == "waiting"
    assert status.reason == "1 devices fit, 3 are needed"
    rig.tick(60)
    status = rig.status("t")
    assert status.state == "failed"
    assert "gave up after 60 s" in status.reason


def test_a_waiting_task_begins_as_soon_as_the_devices_are_there(rig):
    rig.fleet("a")
    rig.submit(task="t")
    rig.device("b")
    rig.work()
    assert rig.newest().cohort == ("a", "b")


def test_a_device_that_refused_is_not_asked_again_for_that_task(rig):
    job = begin(rig, "a", "b", "c")
    rig.job("c", job, "rejected", code="memory", reason="needs 9 GiB")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.newest().cohort == ("a", "b")


def test_a_device_that_was_only_busy_is_asked_again(rig):
    job = begin(rig, "a", "b", "c")
    rig.job("c", job, "rejected", code="busy")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.newest().cohort == ("a", "b", "c")


def test_a_client_that_fails_is_replaced_by_one_that_is_free(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("c")
    rig.job("a", job, "failed", code="training", reason="diverged")
    grown = rig.newest()
    assert grown.round == 1
    assert grown.cohort == ("a", "b", "c")
    rig.update("b", job)
    assert rig.update("c", grown).status == "accepted"
    rig.work()
    assert rig.newest().round == 2


def test_with_too_few_left_the_round_waits_for_its_deadline_and_says_why(rig):
    begin(rig, "a", "b", cohort=2, deadline_s=30)
    rig.device("a", status="offline")
    status = rig.status("t")
    assert status.state == "running"
    assert status.reason == "1 of 2 clients can still report, 2 are needed"
    rig.tick(30)
    assert "extended, 1 of 2 times" in rig.status("t").reason


def test_with_too_few_left_the_round_is_abandoned_if_the_task_says_so(rig):
    job = begin(rig, "a", "b", cohort=2, on_shortfall="abandon")
    rig.update("b", job)
    rig.device("a", status="offline")
    status = rig.status("t")
    assert status.abandoned == 1
    assert "1 devices fit, 2 are needed (1 offline)" in status.reason
    assert status.history[0].reason == "1 of 2 clients can still report, 2 are needed"
    assert status.model_sha256 == job.model.sha256
    assert rig.update("a", job).status == "late"


def test_a_device_that_comes_back_reports_in_the_same_round(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("a", status="offline")
    rig.device("a", boot=2)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.newest().round == 2


def test_a_will_of_an_earlier_life_is_ignored(rig):
    rig.fleet("a", "b")
    rig.device("a", boot=5)
    rig.device("a", status="offline", boot=4)
    assert rig.store.device("a").is_online
    rig.device("a", status="offline", boot=5)
    assert not rig.store.device("a").is_online


def test_a_newer_word_of_a_device_held_for_dead_brings_it_back(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("a", status="offline")
    rig.job("a", job, "training", progress=0.5)
    assert rig.store.device("a").is_online


def test_silent_devices_are_not_selected_and_come_back_when_they_are_heard(rig):
    rig.fleet("a", "b", "c")
    rig.gateway(silent=("c",))
    rig.submit(task="t", cohort=3)
    rig.work()
    assert rig.newest().cohort == ("a", "b")


def test_devices_behind_a_dead_gateway_are_not_selected(rig):
    rig.fleet("a", "b")
    rig.fleet("c", "d", region="us")
    rig.gateway("us", status="offline")
    rig.submit(task="t", cohort=4, min_clients=2)
    rig.work()
    assert {a.region for a in rig.assignments()} == {"eu"}


def test_an_assignment_is_repeated_until_every_client_has_answered(rig):
    job = begin(rig, "a", "b", cohort=2)
    assert assignments(rig.tick(2))
    rig.job("a", job, "accepted")
    assert assignments(rig.tick(5))
    rig.job("b", job, "accepted")
    rig.tick(100)
    assert not assignments(rig.tick(100))


def test_a_gateway_that_is_born_gets_its_assignments_at_once(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.tick(1)
    again = assignments(rig.gateway(boot=2))
    assert [(a.task, a.round) for a in again] == [(job.task, job.round)]


def test_next_is_always_answered_and_names_what_is_still_wanted(rig):
    job = begin(rig, "a", "b", cohort=2)
    held = (JobRef(task="t", round=1), JobRef(task="gone", round=3))
    question, outgoing = rig.ask_next(holding=held)
    assert not assignments(outgoing)
    assert no_jobs(outgoing)[0][0] == question
    assert no_jobs(outgoing)[0][1].keep == (JobRef(task="t", round=1),)
    question, outgoing = rig.ask_next()
    assert [(a.task, a.round) for a in assignments(outgoing)] == [(job.task, job.round)]
    question, outgoing = rig.ask_next("us")
    assert no_jobs(outgoing)[0][1].keep == ()


def test_the_last_round_of_a_task_is_settled_in_the_answer_to_next(rig):
    job = begin(rig, rounds=1)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    _, outgoing = rig.ask_next()
    settled = no_jobs(outgoing)[0][1].settled
    assert [(s.task, s.round, s.counted) for s in settled] == [("t", 1, ("a", "b"))]


def test_two_tasks_share_the_fleet_by_turns(rig):
    job = begin(rig, "a", "b", cohort=2, rounds=3)
    rig.submit(task="u", codec="raw-f32", cohort=2)
    assert "2 busy" in rig.status("u").reason
    turns = []
    for _ in range(4):
        rig.now_s += 1
        rig.update("a", job)
        rig.update("b", job)
        rig.work()
        job = rig.newest()
        turns.append(job.task)
    assert turns == ["t", "u", "t", "u"]


def test_a_cancelled_task_ends_its_round_and_tells_the_gateways(rig):
    job = begin(rig)
    told = [out for out in rig.control("t", "cancel") if out.topic.kind is Kind.CONTROL]
    assert len(told) == 1
    status = rig.status("t")
    assert status.state == "cancelled"
    assert rig.update("a", job).status == "late"
    assert rig.control("t", "resume") == []


def test_a_paused_task_opens_no_round_until_it_is_resumed(rig):
    job = begin(rig)
    rig.control("t", "pause")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.status("t").state == "paused"
    assert rig.newest().round == 1
    rig.control("t", "resume")
    assert rig.newest().round == 2


def test_a_repeated_submission_is_the_same_task(rig):
    rig.submit(task="t", rounds=1)
    rig.submit(task="t", rounds=1)
    assert len(rig.store.live_tasks()) == 1


def test_a_task_without_an_id_is_the_same_until_ten_minutes_after_its_end(rig):
    rig.submit(selection_timeout_s=1)
    (name,) = [task.task for task in rig.store.live_tasks()]
    assert name.startswith("t-")
    rig.submit(selection_timeout_s=1)
    rig.tick(2)
    assert rig.status(name).state == "failed"
    rig.submit(selection_timeout_s=1)
    assert rig.store.live_tasks() == []
    rig.now_s += 700
    rig.submit(selection_timeout_s=1)
    assert [task.task for task in rig.store.live_tasks()] == [f"{name}-2"]


def test_a_retained_submission_does_not_start_a_task(rig):
    rig.submit(retained=True)
    assert rig.store.live_tasks() == []


def test_the_largest_assignment_fits_a_frame(rig):
    names = [f"{number:032d}" for number in range(MAX_COHORT)]
    rig.fleet(*names)
    rig.submit(task="t" * 32, cohort=MAX_COHORT, min_clients=MAX_COHORT, codec="raw-f32", rounds=2)
    rig.work()
    job = rig.newest()
    assert len(job.cohort) == MAX_COHORT
    for name in names:
        rig.update(name, job)
    rig.work()
    assert len(rig.newest().settled[0].counted) == MAX_COHORT


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"min_clinets": 2}, "min_clinets: unknown field; did you mean 'min_clients'?"),
        ({"model": "nope"}, "'nope' is not known; there are: big, mlp"),
        ({"model": "net.onnx"}, "is an ONNX file"),
        ({"codec": "zip"}, "codec: 'zip'"),
        ({"codec": "topk", "codec_params": {"fraction": 2.0}}, "fraction: 2.0"),
        ({"strategy": "best"}, "strategy: 'best' is not known"),
        ({"cohort": 1}, "cohort: 1 is below min_clients: 2 (MIN_CLIENTS)"),
    ],
)
def test_a_task_that_cannot_be_understood_is_rejected_in_words(rig, fields, text):
    rig.submit(task="t", **fields)
    (status,) = rig.rejections()
    assert status.task == "t"
    assert text in status.reason
    assert rig.store.live_tasks() == []


def test_a_rejection_never_covers_the_status_of_a_task_that_exists(rig):
    begin(rig)
    rig.submit(task="t", min_clinets=2)
    (status,) = rig.rejections()
    assert status.task.startswith("t-")
    assert rig.status("t").state == "running"


@pytest.mark.parametrize("payload", [b"", b"[1", b"[" * 100_000, b"x" * (2 << 20), b"\xff\xfe"])
def test_what_is_no_json_is_rejected_under_its_digest(rig, payload):
    rig.arrive(Topic(Kind.TASK_SUBMIT), payload)
    (status,) = rig.rejections()
    assert status.task.startswith("t-")


def test_statuses_of_older_tasks_are_cleared_beyond_the_newest_hundred(rig):
    for number in range(102):
        rig.submit(task=f"t{number}", selection_timeout_s=0)
        rig.tick(1)
    cleared = [
        out.topic.task
        for out in rig.published
        if out.topic.kind is Kind.TASK_STATUS and out.payload == b""
    ]
    assert cleared == ["t0", "t1"]


def test_central_says_that_it_is_there_on_every_connect(rig):
    said = [
        CentralState.model_validate_json(out.payload)
        for out in rig.event(Connected("main"))
        if out.topic.kind is Kind.CENTRAL_STATE
    ]
    assert [(state.status, state.boot) for state in said] == [("online", rig.desk.boot)]


class BigModeler(TinyModeler):
    layout = Layout.of({"w": (300_000,)})


def serve(rig, job, device, value, region="eu"):
    """Offer a large update and send the chunks that central wants; return its receipt."""
    xfer, frame, payload = rig.update_frame(device, job, value)
    topic = Topic(Kind.MANIFEST, Address.of_gateway(region), xfer=xfer)
    pending = rig.arrive(topic, frame)
    while pending:
        out = pending.pop(0)
        if out.topic.kind is Kind.RECEIPT:
            return receipts([out])[0]
        if out.topic.kind is Kind.NEED:
            for k in decode_frame(out.payload).body(Need).want:
                chunk = payload[k * (256 << 10) : (k + 1) * (256 << 10)]
                where = Topic(Kind.CHUNK, Address.of_gateway(region), xfer=xfer, k=k)
                pending += rig.arrive(where, chunk)
    return None


def test_large_updates_are_pulled_in_chunks_even_when_two_are_alike(tmp_path):
    rig = CentralRig(tmp_path, BigModeler())
    job = begin(rig, rounds=1)
    assert not job.model.inline
    assert serve(rig, job, "a", 1.0).status == "accepted"
    assert serve(rig, job, "b", 1.0).status == "accepted"
    rig.work()
    status = rig.status("t")
    assert status.state == "completed"
    assert model_of(rig, status.model_sha256)[::1000].tolist() == [1.0] * 300
    rig.connection.close()


def test_a_gateway_gets_chunks_of_a_model_and_of_nothing_else(tmp_path):
    rig = CentralRig(tmp_path, BigModeler())
    job = begin(rig)
    writer = FrameWriter("gw/eu", 1, np.random.default_rng(9), lambda: 0.0)
    where = Topic(Kind.GET, Address.of_gateway("eu"))
    frame = writer.frame(Get(sha256=job.model.sha256, want=(0, 4, 99)))
    blocks = {out.topic.k: out.payload for out in rig.arrive(where, frame)}
    whole = rig.objects.read(job.model.sha256)
    assert blocks == {0: whole[: 256 << 10], 4: whole[4 * (256 << 10) :]}
    other = rig.objects.put(b"secret", durable=False)
    frame = writer.frame(Get(sha256=other, want=(0,)))
    assert rig.arrive(where, frame) == []
    rig.connection.close()


def test_a_manifest_that_lies_about_the_whole_object_is_rejected(tmp_path):
    rig = CentralRig(tmp_path, BigModeler())
    job = begin(rig)
    payload = bytes(600_000)
    manifest, tail = describe(payload)
    lying = manifest.model_copy(update={"sha256": "1" * 64})
    xfer = transfer_id("a", "t", 1, "1" * 64)
    _, frame, _ = rig.update_frame("a", job, payload=payload, object=lying, tail=tail, xfer=xfer)
    pending = rig.arrive(Topic(Kind.MANIFEST, Address.of_gateway("eu"), xfer=xfer), frame)
    found = []
    for k in range(manifest.chunks):
        where = Topic(Kind.CHUNK, Address.of_gateway("eu"), xfer=xfer, k=k)
        found += rig.arrive(where, payload[k * (256 << 10) : (k + 1) * (256 << 10)])
    assert receipts(pending + found)[0].status == "rejected"
    rig.connection.close()


def test_a_large_update_that_ends_up_late_leaves_no_file(tmp_path):
    rig = CentralRig(tmp_path, BigModeler())
    job = begin(rig)
    xfer, frame, payload = rig.update_frame("c", job, 3.0)
    rig.arrive(Topic(Kind.MANIFEST, Address.of_gateway("eu"), xfer=xfer), frame)
    serve(rig, job, "a", 1.0)
    serve(rig, job, "b", 2.0)
    found = []
    for k in range(-(-len(payload) // (256 << 10))):
        where = Topic(Kind.CHUNK, Address.of_gateway("eu"), xfer=xfer, k=k)
        found += rig.arrive(where, payload[k * (256 << 10) : (k + 1) * (256 << 10)])
    assert receipts(found)[-1].status == "late"
    assert len(rig.objects.sizes()) == 4  # the graph, the model, two updates
    rig.connection.close()


def test_what_is_old_is_purged_with_its_objects(tmp_path):
    rig = CentralRig(tmp_path, BigModeler(), keep_task_s=10.0)
    job = begin(rig, rounds=1)
    serve(rig, job, "a", 1.0)
    serve(rig, job, "b", 2.0)
    rig.work()
    assert len(rig.objects.sizes()) == 5  # the graph, two models, two updates
    rig.tick(4000)
    assert rig.store.task("t") is None
    assert rig.objects.sizes() == {}
    assert rig.status("unknown") is None
    rig.connection.close()


def test_refusals_of_unknown_tasks_and_devices_long_gone_are_purged_too(tmp_path):
    rig = CentralRig(tmp_path, keep_task_s=10.0)
    begin(rig)
    with transaction(rig.connection):
        refusal = Refusal("0" * 32, "gone", 1, "a", "rejected", "E_PLAN", "why", rig.now_s)
        assert rig.store.add_refusal(refusal)
    rig.device("b", status="offline")
    count = "SELECT count(*) FROM refusals"
    assert rig.connection.execute(count).fetchone() == (1,)
    rig.tick(4000)
    assert rig.connection.execute(count).fetchone() == (0,)
    assert [record.device for record in rig.store.devices()] == ["a", "c"]
    rig.connection.close()


def test_nothing_is_remembered_of_rounds_whose_devices_speak_after_the_end(rig):
    """Each client says ``done`` when its round has long closed: that must not pile up."""
    known = rig.handler._assignments._answered
    job = begin(rig, rounds=6)
    for _ in range(6):
        rig.update("a", job)
        rig.update("b", job)
        rig.work()
        for device in ("a", "b"):
            rig.job(device, job, "done")
        assert len(known) <= 2
        job = rig.newest()
    rig.tick(4000)
    assert known == {}


def test_a_pull_that_nobody_goes_on_with_is_forgotten(tmp_path):
    rig = CentralRig(tmp_path, BigModeler())
    job = begin(rig)
    xfer, frame, _ = rig.update_frame("a", job)
    rig.offer(xfer, frame)
    pulling = rig.handler._uploads._pulling
    assert list(pulling) == [xfer]
    rig.tick(4000)
    assert pulling == {}
    rig.connection.close()


def test_a_status_is_plain_json_that_names_what_a_person_asks(rig):
    begin(rig)
    rig.status("t")
    text = [o.payload for o in rig.published if o.topic.kind is Kind.TASK_STATUS][-1]
    found = json.loads(text)
    assert (found["state"], found["round"], found["phase"]) == ("running", 1, "reporting")
    assert (found["cohort"], found["min_clients"], found["reported"]) == (3, 2, 0)


def killed_while_aggregating(rig, times):
    job = begin(rig, rounds=1)
    rig.update("a", job)
    rig.update("b", job)
    for _ in range(times):
        rig.worker.waiting.clear()
        rig.restart()


def test_an_aggregation_that_ends_central_each_time_is_given_up_after_five_starts(rig):
    killed_while_aggregating(rig, 4)
    assert len(rig.worker.waiting) == 1
    rig.worker.waiting.clear()
    rig.restart()
    assert rig.worker.waiting == []
    status = rig.status("t")
    (ended,) = status.history
    assert ended.outcome == "abandoned"
    assert "aggregation was begun 5 times and never ended" in ended.reason
    assert {row.settled for row in rig.store.contributions("t", 1)} == {"discarded"}
    assert rig.newest().round == 2


def test_an_aggregation_that_succeeds_at_the_fifth_start_is_committed(rig):
    killed_while_aggregating(rig, 4)
    rig.work()
    assert rig.status("t").state == "completed"


def test_restarts_in_order_count_against_no_aggregation(rig):
    rig.was_clean = True
    killed_while_aggregating(rig, 10)
    rig.work()
    assert rig.status("t").state == "completed"


def test_a_first_model_that_ends_central_each_time_fails_the_task(rig):
    rig.fleet("a", "b")
    rig.submit(task="t")
    for _ in range(5):
        assert len(rig.worker.waiting) == 1
        rig.worker.waiting.clear()
        rig.restart()
    assert rig.worker.waiting == []
    status = rig.status("t")
    assert status.state == "failed"
    assert "building the first model was begun 5 times" in status.reason


def test_an_evaluation_that_ends_central_each_time_is_left_out(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5,) * 9
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig, rounds=2)
    rig.update("a", job)
    rig.update("b", job)
    rig.event(rig.worker.jobs.work(rig.worker.waiting.pop()))
    for _ in range(5):
        assert len(rig.worker.waiting) == 1
        rig.worker.waiting.clear()
        rig.restart()
    rig.tick()
    assert rig.worker.waiting == []
    assert rig.newest().round == 2
    assert rig.status("t").history[0].metrics == {}
    rig.connection.close()


def test_a_task_that_comes_before_the_word_of_the_connection_was_not_interrupted(rig):
    """The broker kept its message: it may be handled first, and its model is prepared once."""
    rig.fleet("a", "b", "c")
    rig.desk = replace(rig.desk, _in_hand=set())  # as in a life that has just begun
    rig.handler = Orchestrator(rig.desk, rig.worker, keep_task_s=1e9)
    rig.submit(task="t", cohort=3)
    rig.event(Connected("main"))
    assert rig.store.task("t").progress.interruptions == 0
    assert len(rig.worker.waiting) == 1
