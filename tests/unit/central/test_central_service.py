"""Central's service: updates, receipts, rounds and models of one task."""

import numpy as np
import pytest

from central.adapters.stored_rounds import read_model
from central.service.ports import JobFailed
from tests.support.central_fixture import (
    DIGITS,
    CentralRig,
    TinyModeler,
    begin,
)
from updates.codecs import create, header


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
