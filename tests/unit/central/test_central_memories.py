"""What devices keep from round to round, as central tells, checks and sums it."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors

from central.adapters.audit import open_books
from central.core import lazy_sum
from central.core.strategies.fedavg import FedAvg
from central.service import memories
from schemas.limits import MAX_COHORT
from tests.support.central_fixture import LAYOUT, CentralRig
from tests.support.memory_devices import MemoryDevice

NAMES = ("a", "b", "c")


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path)
    made.fleet(*NAMES)
    yield made
    made.connection.close()


@pytest.fixture
def devices():
    return {name: MemoryDevice(name, LAYOUT, 10 * (n + 1)) for n, name in enumerate(NAMES)}


def submit(rig, codec="laq", rounds=50, **fields):
    rig.submit(task="t", codec=codec, rounds=rounds, cohort=3, selection="all", **fields)
    rig.work()
    return rig.newest()


def vector(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal(LAYOUT.size)).astype(np.float32)


def send(rig, device, assignment, value):
    payload, reference = device.update(assignment, value)
    return rig.update(
        device.name,
        assignment,
        payload=payload,
        reference=reference,
        examples=device.examples,
    )


def play(rig, devices, names=("a", "b"), scale=1.0):
    """Let these devices report in the open round, which then is committed."""
    assignment = rig.newest()
    for name in names:
        value = vector((assignment.round, ord(name)), scale)
        assert send(rig, devices[name], assignment, value).status == "accepted"
    rig.work()
    return assignment


def state(rig):
    return safetensors.load(rig.store.strategy_state("t"))


def held(rig):
    """Return central's vectors by device."""
    prefix = "lazy.vector."
    return {
        name.removeprefix(prefix): array
        for name, array in state(rig).items()
        if name.startswith(prefix)
    }


def model(rig):
    return np.frombuffer(
        rig.objects.read(rig.store.task("t").model_sha256)[-4 * LAYOUT.size :], "<f4"
    )


def assert_audited(rig, task="t"):
    with open_books(rig.root, {}) as books:
        found = books.audit(task)
    assert found.findings == []
    assert len(found.recomputed) == found.committed


def test_each_device_is_told_its_last_counted_round(rig, devices):
    first = submit(rig, "topk")
    assert first.plan.memory == "feedback"
    assert (first.cohort, first.references) == (NAMES, (0, 0, 0))
    play(rig, devices, ("a", "b"))
    second = rig.newest()
    assert (second.round, second.references) == (2, (1, 1, 0))
    play(rig, devices, ("b", "c"))
    assert rig.newest().references == (1, 2, 2)


def test_a_late_update_and_an_abandoned_round_do_not_count(rig, devices):
    submit(rig, "topk", on_shortfall="abandon", deadline_s=60)
    first = play(rig, devices)
    assert send(rig, devices["c"], first, vector(1)).status == "late"
    second = rig.newest()
    send(rig, devices["c"], second, vector(2))
    rig.tick(61)
    rig.tick(1)
    third = rig.newest()
    assert (third.round, third.references) == (3, (1, 1, 0))


def test_a_task_without_memory_tells_nothing(rig, devices):
    first = submit(rig, "int8")
    assert (first.plan.memory, first.references, first.lazy) == ("none", (), None)
    refused = rig.update("a", first, reference=1)
    assert (refused.code, refused.detail) == (
        "E_REFERENCE",
        "reference: 1, the update must build on none (0)",
    )
    rig.submit(task="u", codec="topk", error_feedback=False)
    rig.work()
    assert rig.newest().plan.memory == "none"


def test_an_update_that_builds_on_another_round_is_refused(rig, devices):
    submit(rig, "topk")
    play(rig, devices)
    second = rig.newest()
    receipt = rig.update("a", second, reference=2)
    assert (receipt.status, receipt.code) == ("rejected", "E_REFERENCE")
    assert "must build on round 1, or on none (0)" in receipt.detail
    receipt = rig.update("c", second, reference=1)
    assert receipt.code == "E_REFERENCE"
    assert rig.update("b", second, reference=1).status == "accepted"
    assert rig.store.contribution("t", 2, "b").reference == 1


def test_an_update_that_begins_anew_is_taken(rig, devices):
    submit(rig)
    play(rig, devices)
    devices["a"].rows.clear()
    play(rig, devices)
    assert rig.store.contribution("t", 2, "a").reference == 0
    assert held(rig)["a"].tobytes() == devices["a"].vector(2).tobytes()


def test_what_is_left_out_and_what_was_sent_make_up_all_that_was_trained(rig, devices):
    submit(rig, "topk")
    for names in ("ab", "bc", "ac", "ab", "bc"):
        play(rig, devices, names)
    for device in devices.values():
        counted = sorted(device.sent)
        left_out = np.zeros(LAYOUT.size, np.float32)
        for number in counted:
            left_out = device.trained[number] + left_out - device.sent[number]
        assert left_out.tobytes() == device.rows[counted[-1]].tobytes()
    assert_audited(rig)


def test_central_holds_the_devices_vectors_bit_for_bit(rig, devices):
    submit(rig)
    for names in ("ab", "bc", "ac", "ab", "ab", "bc"):
        play(rig, devices, names, scale=2.0 ** rig.newest().round)
        number = rig.newest().round - 1
        for name in names:
            assert held(rig)[name].tobytes() == devices[name].vector(number).tobytes()
            assert devices[name].rows[number].clock == 0
    assert_audited(rig)


def test_the_strategy_gets_the_vectors_of_all_devices_weighted(rig, devices):
    submit(rig)
    play(rig, devices, ("a", "b"))
    play(rig, devices, ("b", "c"))
    before = model(rig)
    play(rig, devices, ("a", "b"))  # c is absent, and counts as it was
    vectors = {name: array.astype(np.float64) for name, array in held(rig).items()}
    assert sorted(vectors) == list(NAMES)
    mean = sum(devices[name].examples * vectors[name] for name in NAMES) / 60
    np.testing.assert_allclose(model(rig), before + mean, rtol=1e-6, atol=1e-6)


def test_a_skip_is_a_contribution_that_leaves_everything_as_it_was(rig, devices):
    submit(rig)
    play(rig, devices, scale=1.0)
    assignment = rig.newest()
    assert assignment.lazy.examples == 30
    before = held(rig)
    for name in ("a", "b"):
        same = devices[name].trained[1]
        assert send(rig, devices[name], assignment, same).status == "accepted"
    rig.work()
    sizes = [rig.store.contribution("t", 2, name).size for name in ("a", "b")]
    assert sizes == [13, 13]
    after = held(rig)
    assert {name: array.tobytes() for name, array in after.items()} == {
        name: array.tobytes() for name, array in before.items()
    }
    assert devices["a"].rows[2].clock == 1
    assert_audited(rig)


def test_the_threshold_is_that_of_the_last_aggregates(rig, devices):
    first = submit(rig)
    assert first.lazy is None
    energies = []
    for _ in range(12):
        play(rig, devices)
        mean = sum(devices[n].examples * held(rig)[n].astype(np.float64) for n in "ab") / 30
        energies.append(float(np.square(mean.astype(np.float32).astype(np.float64)).sum()))
    told = rig.newest().lazy
    assert told.threshold == pytest.approx(0.08 * sum(energies[-10:]) / 4)
    assert len(state(rig)["lazy.energies"]) == 10


def test_a_codec_that_never_skips_is_not_told_how(rig, devices):
    submit(rig, "bbit")
    assert rig.store.task("t").submission.codec == "laq"
    play(rig, devices)
    assert rig.newest().lazy is None
    assert rig.newest().references == (1, 1, 0)
    play(rig, devices)
    assert held(rig)["a"].tobytes() == devices["a"].vector(2).tobytes()


def test_what_is_told_is_committed_with_the_round_and_outlives_central(rig, devices):
    submit(rig)
    play(rig, devices)
    told = rig.newest()
    rig.published.clear()
    rig.restart()
    rig.tick(100)
    again = rig.newest()
    assert (again.round, again.lazy, again.references) == (2, told.lazy, told.references)


def test_an_aggregation_that_is_done_again_gives_the_same(rig, devices):
    submit(rig)
    play(rig, devices)
    assignment = rig.newest()
    for name in ("a", "b"):
        send(rig, devices[name], assignment, vector(ord(name), scale=10))
    job = rig.worker.waiting[0]
    first = rig.worker.jobs.work(job)
    rig.worker.waiting.clear()
    rig.restart()  # killed before the result was committed
    assert held(rig)["a"].tobytes() != devices["a"].vector(2).tobytes()
    again = rig.worker.jobs.work(rig.worker.waiting[0])
    assert (again.sha256, again.state, again.lazy) == (first.sha256, first.state, first.lazy)
    rig.work()
    assert held(rig)["a"].tobytes() == devices["a"].vector(2).tobytes()
    assert_audited(rig)


def test_a_device_that_is_away_for_long_is_forgotten_at_both_ends(rig, devices, monkeypatch):
    monkeypatch.setattr(memories, "REACH_ROUNDS", 3)
    monkeypatch.setattr(lazy_sum, "REACH_ROUNDS", 3)
    submit(rig)
    play(rig, devices, ("a", "b"))
    for expected in (1, 1):
        play(rig, devices, ("b", "c"))
        assert rig.newest().references[0] == expected
        assert "a" in held(rig)
    play(rig, devices, ("b", "c"))
    assert rig.newest().references == (0, 4, 4)
    assert sorted(held(rig)) == ["b", "c"]
    play(rig, devices, ("a", "b"))
    assert rig.store.contribution("t", 5, "a").reference == 0
    assert held(rig)["a"].tobytes() == devices["a"].vector(5).tobytes()
    assert_audited(rig)


def test_a_lazy_task_that_cannot_be_held_fails_with_both_numbers(rig, monkeypatch):
    monkeypatch.setattr(lazy_sum, "MAX_BYTES", 63)
    rig.submit(task="t", codec="laq")
    rig.work()
    status = rig.status("t")
    assert status.state == "failed"
    assert "2 clients x 8 parameters x 4 bytes = 64 bytes, at most 63" in status.reason


def test_one_client_too_many_abandons_the_round_and_keeps_what_was(rig, devices, monkeypatch):
    monkeypatch.setattr(lazy_sum, "MAX_BYTES", 64)
    submit(rig)
    play(rig, devices, ("a", "b"))
    before = rig.store.strategy_state("t")
    play(rig, devices, ("b", "c"))
    status = rig.status("t")
    assert "3 clients x 8 parameters" in status.history[-1].reason
    assert rig.store.strategy_state("t") == before
    assert rig.newest().references == (1, 1, 0)


def test_feedback_with_a_codec_that_forbids_it_is_rejected_by_name(rig):
    rig.submit(task="t", codec="int8", error_feedback=True)
    (rejected,) = rig.rejections()
    assert rejected.reason.startswith("error_feedback: True: not with codec int8")


def test_a_preset_is_resolved_when_the_task_comes(rig):
    rig.submit(task="t", codec="laq8")
    asked = rig.store.task("t").submission
    assert asked.codec == "symmetric"
    assert asked.codec_params == {"bits": 8, "stochastic": True, "scope": "vector"}
    rig.submit(task="u", codec="laq8", codec_params={"bits": 4})
    assert "preset laq8 has 8" in rig.rejections()[-1].reason


def test_what_became_of_the_longest_cohort_is_told_beside_its_references(tmp_path):
    rig = CentralRig(tmp_path)
    names = [f"{number:032d}" for number in range(MAX_COHORT)]
    rig.fleet(*names)
    size = MAX_COHORT
    task = {"task": "t" * 32, "cohort": size, "min_clients": size, "rounds": 2}
    rig.submit(**task, codec="topk")
    rig.work()
    job = rig.newest()
    for name in names:
        assert rig.update(name, job, value=1.0).status == "accepted"
    rig.work()
    second = rig.newest()
    assert (second.round, second.settled[0].counted) == (2, tuple(names))
    assert second.references == (1,) * size
    rig.connection.close()


def test_a_strategy_keeps_its_own_state_beside_the_vectors():
    class Counting(FedAvg):
        def apply(self, own, contributions):
            _, new = super().apply({}, contributions)
            return {"count": own.get("count", np.zeros(1)) + 1}, new

    class Thief(FedAvg):
        def apply(self, own, contributions):
            return {"lazy.energies": np.zeros(3)}, contributions.model

    contributions = lazy_sum.Contributions(
        np.zeros(LAYOUT.size, np.float32), (contribution("a", vector(1)),)
    )
    after, _, _ = lazy_sum.run_lazily(Counting(), {}, contributions)
    after, _, _ = lazy_sum.run_lazily(Counting(), after, contributions)
    assert after["count"] == 2
    with pytest.raises(lazy_sum.StrategyError, match=r"lazy\.energies"):
        lazy_sum.run_lazily(Thief(), {}, contributions)


def contribution(device, value, reference=0):
    codec = lazy_sum.create("laq")
    payload = codec.encode(value, LAYOUT, np.random.default_rng(0))
    return lazy_sum.Contribution(device, 5, LAYOUT, codec, lambda: payload, reference=reference)


def test_a_contribution_that_builds_on_nothing_held_is_no_aggregate():
    one = contribution("a", vector(1), reference=7)
    contributions = lazy_sum.Contributions(np.zeros(LAYOUT.size, np.float32), (one,))
    with pytest.raises(lazy_sum.StrategyError, match="a: builds on round 7, of which no vector"):
        lazy_sum.run_lazily(FedAvg(), {}, contributions)


def test_an_audit_finds_an_update_that_builds_on_another_round(rig, devices):
    submit(rig, "topk")
    play(rig, devices)
    play(rig, devices)
    play(rig, devices)
    assert_audited(rig)
    with rig.connection as connection:
        connection.execute("UPDATE contributions SET reference = 1 WHERE round = 3")
    with open_books(rig.root, {}) as books:
        found = books.audit("t").findings
    assert "round 3, a: builds on round 1, counted last was 2" in found


def test_the_terms_are_small_json_in_the_tasks_row(rig, devices):
    submit(rig)
    play(rig, devices)
    (text,) = rig.connection.execute("SELECT lazy FROM tasks").fetchone()
    assert json.loads(text) == {
        "threshold": rig.newest().lazy.threshold,
        "examples": 30,
        "clients": None,
    }
