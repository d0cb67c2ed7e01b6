"""A task whose codec is ``auto``: each update is decoded with what its device has picked."""

import numpy as np
import pytest

from central.adapters.stored_rounds import read_model
from tests.support.central_fixture import begin
from updates.choice import CANDIDATES
from updates.codecs import create


def pick(rig, device, assignment, candidate, value=1.0, **changes):
    codec = create(candidate.codec_id, candidate.params)
    vector = np.full(rig.modeler.layout.size, value, np.float32)
    payload = codec.encode(vector, rig.modeler.layout, np.random.default_rng(0))
    fields = {"codec": candidate.codec_id, "codec_params": dict(candidate.params), **changes}
    xfer, frame, _ = rig.update_frame(device, assignment, payload=payload, **fields)
    return rig.offer(xfer, frame)


def start(rig, accuracy, *devices, rounds=2):
    rig.fleet(*devices)
    params = {"accuracy": accuracy}
    rig.submit(task="t", codec="auto", codec_params=params, rounds=rounds, cohort=len(devices))
    rig.work()
    return rig.newest()


def test_updates_in_different_codecs_make_one_model_and_are_counted_by_codec(rig):
    assignment = start(rig, "exact", "a", "b")
    assert (assignment.plan.codec, assignment.plan.memory) == ("auto", "none")
    raw, half = CANDIDATES["exact"]
    before = read_model(rig.objects.path(assignment.model.sha256))[1].copy()
    assert pick(rig, "a", assignment, raw, 1.0).status == "accepted"
    assert pick(rig, "b", assignment, half, 3.0).status == "accepted"
    rig.work()
    after = read_model(rig.objects.path(rig.newest().model.sha256))[1]
    np.testing.assert_allclose(after - before, 2.0, rtol=1e-5)
    status = rig.status("t")
    assert status.codecs == {"raw-f32": 1, "fp16": 1}
    assert status.history[-1].codecs == status.codecs
    first = rig.store.contribution("t", assignment.round, "b")
    assert (first.codec, first.codec_params) == ("fp16", {})


def test_settings_are_kept_with_an_update(rig):
    assignment = start(rig, "small", "a", "b")
    assert assignment.plan.memory == "feedback"
    candidate = CANDIDATES["small"][1]
    for device in ("a", "b"):
        assert pick(rig, device, assignment, candidate).status == "accepted"
    kept = rig.store.contribution("t", assignment.round, "a")
    assert (kept.codec, kept.codec_params) == ("ecsq", {"bits": 0.1})
    rig.work()
    assert rig.status("t").codecs == {"ecsq bits=0.1": 2}


@pytest.mark.parametrize(
    ("codec", "params"),
    [("int8", {}), ("ecsq", {"bits": 6.0}), ("ecsq", {}), ("auto", {"accuracy": "small"})],
)
def test_what_is_no_candidate_of_the_accuracy_is_refused(rig, codec, params):
    assignment = start(rig, "small", "a", "b")
    receipt = pick(rig, "a", assignment, CANDIDATES["small"][0], codec=codec, codec_params=params)
    assert (receipt.status, receipt.code) == ("rejected", "E_PLAN")


@pytest.mark.parametrize("params", [{"bits": 8.0, "stochastic": 0}, {"bits": 8, "stochastic": 0}])
def test_settings_that_only_python_takes_for_a_candidates_are_refused(rig, params):
    assignment = start(rig, "balanced", "a", "b")
    receipt = pick(rig, "a", assignment, CANDIDATES["balanced"][0], codec_params=params)
    assert (receipt.status, receipt.code) == ("rejected", "E_PLAN")


def test_a_task_that_names_its_codec_takes_no_other(rig):
    assignment = begin(rig, "a", "b")
    receipt = pick(rig, "a", assignment, CANDIDATES["exact"][1])
    assert (receipt.status, receipt.code) == ("rejected", "E_PLAN")
    assert rig.status("t").codecs == {}


def test_an_accuracy_that_does_not_exist_is_refused_at_once(rig):
    rig.submit(task="t", codec="auto", codec_params={"accuracy": "best"})
    status = rig.status("t")
    assert status.state == "rejected"
    assert "exact, high, balanced, small" in status.reason
