"""Central in rounds with an uplink budget: who is granted, pulled, refused, and told again."""

from dataclasses import replace

import pytest

from central.adapters.audit import open_books
from central.adapters.audited_budgets import budget_findings
from central.adapters.stored_rounds import read_model
from central.core.rounds import Grant
from schemas.bids import Bid
from schemas.envelope import decode_frame
from schemas.messages import Need, UpdateManifest
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import begin, receipts

#: As float32 the eight parameters and the payload's header are this long.
UPDATE_BYTES = 44
DEVICES = ("a", "b", "c", "d")


def a_round(rig, updates=2, **task):
    """Begin a task whose rounds pay for so many updates."""
    wanted = {"min_clients": 4, "uplink_budget_bits": 8 * (UPDATE_BYTES * updates + 7)}
    return begin(rig, *DEVICES, **{**wanted, **task})


def bid(rig, device, job, value=1.0, **changes):
    """Publish one device's bid; return the transfer, its payload and all that central said."""
    xfer, frame, payload = rig.update_frame(device, job, value, **changes)
    topic = Topic(Kind.MANIFEST, Address.of_gateway("eu"), xfer=xfer)
    return xfer, payload, rig.arrive(topic, frame)


def needs(outgoing):
    return {out.topic.xfer for out in outgoing if out.topic.kind is Kind.NEED}


def give(rig, xfer, payload):
    topic = Topic(Kind.CHUNK, Address.of_gateway("eu"), xfer=xfer, k=0)
    return receipts(rig.arrive(topic, payload))


def all_bid(rig, job, values=(1.0, 4.0, 3.0, 2.0), **changes):
    """Let all four bid; return their transfers and payloads, and what central said at last."""
    made, outgoing = {}, []
    for device, value in zip(DEVICES, values, strict=True):
        assert needs(outgoing) == set()
        *made[device], outgoing = bid(rig, device, job, value, **changes)
    return made, outgoing


def state_of(rig, number=1):
    return rig.store.round("t", number).state


def test_the_plan_tells_devices_to_bid(rig):
    assert a_round(rig).plan.bids
    rig.control("t", "cancel")
    rig.submit(task="other", codec="raw-f32")
    rig.work()
    assert (rig.newest().task, rig.newest().plan.bids) == ("other", False)


def test_the_size_that_the_tests_count_with_is_that_of_an_update(rig):
    _, payload, _ = bid(rig, "a", a_round(rig))
    assert len(payload) == UPDATE_BYTES


def test_what_brings_most_is_pulled_and_the_rest_is_told_why_not(rig):
    made, outgoing = all_bid(rig, a_round(rig))
    assert needs(outgoing) == {made["b"][0], made["c"][0]}
    told = receipts(outgoing)
    assert {one.xfer for one in told} == {made["a"][0], made["d"][0]}
    assert {(one.status, one.code, one.is_final) for one in told} == {("late", "E_BUDGET", True)}
    assert all(one.is_over_budget for one in told)
    assert told[0].detail == "round: 1 granted 2 of 4 bids"
    assert state_of(rig).failed == frozenset()
    assert rig.store.contributions("t", 1) == []


def test_the_round_commits_with_what_was_granted_and_counts_nobody_as_late(rig):
    made, _ = all_bid(rig, a_round(rig))
    assert [one.status for one in give(rig, *made["b"])] == ["accepted"]
    assert state_of(rig).phase.value == "reporting"
    give(rig, *made["c"])
    rig.work()
    status = rig.status("t")
    ended = status.history[0]
    assert (ended.outcome, ended.clients, ended.bids, ended.granted) == ("committed", 2, 4, 2)
    assert (ended.late, status.late) == (0, 0)
    assert ended.uplink_bytes == 2 * UPDATE_BYTES
    assert rig.newest().round == 2


def test_a_round_that_collects_bids_says_so(rig):
    job = a_round(rig)
    bid(rig, "a", job)
    assert rig.status("t").phase == "bidding"
    for device in "bcd":
        bid(rig, device, job)
    assert rig.status("t").phase == "reporting"


def test_examples_weigh_a_gain_by_their_square_and_not_with_the_mean(rig):
    job = a_round(rig, updates=1)
    for device, examples in zip("abcd", (1, 1, 5, 1), strict=True):
        bid(rig, device, job, 3.0 if device == "c" else 10.0, examples=examples)
    assert {one.device for one in state_of(rig).grants} == {"c"}


def test_the_strategy_mean_weighs_all_alike(rig):
    job = a_round(rig, updates=1, strategy="mean")
    for device, examples in zip("abcd", (1, 1, 5, 1), strict=True):
        bid(rig, device, job, 3.0 if device == "c" else 10.0, examples=examples)
    assert {one.device for one in state_of(rig).grants} == {"a"}


def test_who_has_waited_long_enough_is_granted_whatever_its_gain(rig):
    job = a_round(rig, updates=1, budget_max_clock=3)
    for device in DEVICES:
        clock = {"a": 3, "d": 4}.get(device, 2)
        bid(rig, device, job, 0.0 if device == "d" else 9.0, clock=clock)
    assert {one.device for one in state_of(rig).grants} == {"d"}


def test_after_its_share_of_the_deadline_the_bids_that_are_there_are_granted(rig):
    job = a_round(rig, min_clients=2, deadline_s=100.0, budget_bid_share=0.25)
    bid(rig, "a", job)
    xfer, _, outgoing = bid(rig, "b", job, 5.0)
    assert outgoing == []
    assert needs(rig.tick(24)) == set()
    assert needs(rig.tick(2)) > {xfer}
    late, _, outgoing = bid(rig, "c", job, 100.0)
    (told,) = receipts(outgoing)
    assert (told.xfer, told.is_over_budget) == (late, True)


def test_a_client_that_fails_or_goes_away_lets_the_others_be_granted(rig):
    job = a_round(rig, min_clients=2)
    bid(rig, "a", job)
    bid(rig, "b", job)
    rig.job("c", job, "failed", code="training")
    assert state_of(rig).grants is None
    rig.device("d", status="offline")
    assert {one.device for one in state_of(rig).grants} == {"a", "b"}


def test_central_killed_between_decision_and_pull_grants_the_same(rig):
    job = a_round(rig)
    made, _ = all_bid(rig, job)
    before = state_of(rig).grants
    rig.restart()
    assert state_of(rig).grants == before
    again, _ = {}, None
    for device, value in zip(DEVICES, (1.0, 4.0, 3.0, 2.0), strict=True):
        *_, outgoing = bid(rig, device, job, value)
        again[device] = [one.code for one in receipts(outgoing)] or needs(outgoing)
    assert again == {
        "a": ["E_BUDGET"],
        "b": {made["b"][0]},
        "c": {made["c"][0]},
        "d": ["E_BUDGET"],
    }
    give(rig, *made["b"])
    give(rig, *made["c"])
    rig.work()
    assert rig.newest().round == 2


def test_central_killed_while_bids_come_hears_them_again(rig):
    job = a_round(rig)
    for device in "abc":
        bid(rig, device, job)
    rig.restart()
    *_, outgoing = bid(rig, "d", job)
    assert outgoing == []
    for device in "abc":
        *_, outgoing = bid(rig, device, job)
    assert len(needs(outgoing)) == 2


def test_a_grant_covers_the_object_that_was_bid_for_and_no_other(rig):
    job = a_round(rig)
    all_bid(rig, job)
    *_, outgoing = bid(rig, "b", job, 99.0)
    assert [one.code for one in receipts(outgoing)] == ["E_BUDGET"]
    assert needs(outgoing) == set()


def test_a_grant_covers_the_size_that_was_bid_and_no_larger_one_of_the_same_name(rig):
    """A transfer's id is that of the object's digest: it says nothing of the size."""
    job = a_round(rig)
    honest = rig.update_frame("b", job, 4.0)[1]
    manifest = decode_frame(honest).body(UpdateManifest)
    small = manifest.object.model_copy(update={"size": 20})
    lie = {"object": small, "bid": Bid(9.0, 0, 20).encode()}
    bid(rig, "a", job)
    bid(rig, "b", job, 4.0, **lie)
    bid(rig, "c", job)
    *_, outgoing = bid(rig, "d", job)
    assert manifest.xfer in needs(outgoing)
    *_, outgoing = bid(rig, "b", job, 4.0)
    assert [one.code for one in receipts(outgoing)] == ["E_BUDGET"]
    assert needs(outgoing) == set()


def test_the_newest_bid_of_a_device_is_the_one_that_stands(rig):
    job = a_round(rig)
    bid(rig, "b", job, 99.0)
    made, _ = all_bid(rig, job)
    assert Grant("b", made["b"][0], UPDATE_BYTES) in state_of(rig).grants


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bid": None}, "E_BID"),
        ({"bid": Bid(1.0, 0, UPDATE_BYTES - 1).encode()}, "E_BID"),
        ({"bid": "7f8000000000002b"}, "E_SCHEMA"),
        ({"tail": b""}, "E_PAYLOAD"),
        ({"codec": "int8"}, "E_PLAN"),
    ],
)
def test_what_is_no_proper_bid_is_refused_and_its_client_has_failed(rig, changes, code):
    job = a_round(rig)
    *_, outgoing = bid(rig, "a", job, **changes)
    assert [(one.status, one.code) for one in receipts(outgoing)] == [("rejected", code)]
    assert state_of(rig).failed == {"a"}


def test_an_update_that_rides_inline_is_refused(rig):
    job = a_round(rig)
    plain = job.model_copy(update={"plan": job.plan.model_copy(update={"bids": False})})
    told = rig.update("a", plain, bid=Bid(1.0, 0, UPDATE_BYTES).encode())
    assert (told.status, told.code) == ("rejected", "E_BID")


def test_the_audit_holds_and_finds_what_is_over_the_budget_or_was_not_granted(rig):
    made, _ = all_bid(rig, a_round(rig, rounds=1))
    give(rig, *made["b"])
    give(rig, *made["c"])
    rig.work()
    with open_books(rig.root, {}) as books:
        found = books.audit("t")
    assert found.findings == []
    assert found.refused == {"late E_BUDGET": 2}
    rows = rig.store.contributions("t", 1)
    record = rig.store.round("t", 1)
    assert budget_findings([record], rows) == []
    large = [replace(row, size=10 * row.size) for row in rows]
    bits, budget_bits = 8 * 20 * UPDATE_BYTES, 8 * (2 * UPDATE_BYTES + 7)
    over = f"round 1: {bits} bits of updates accepted, the budget is {budget_bits}"
    ungranted = [f"round 1, {device}: accepted without a grant" for device in "bc"]
    assert budget_findings([record], large) == [over, *ungranted]
    other = [replace(rows[0], xfer="another")]
    assert budget_findings([record], other) == ["round 1, b: accepted without a grant"]


def test_when_nothing_fits_all_are_told_and_the_round_says_what_the_budget_is(rig):
    job = a_round(rig, uplink_budget_bits=100)
    _, outgoing = all_bid(rig, job)
    assert [one.code for one in receipts(outgoing)] == ["E_BUDGET"] * 4
    ended = rig.status("t").history[0]
    assert ended.reason == "none of 4 updates is within uplink_budget_bits: 100"
    assert (ended.outcome, ended.bids, ended.granted) == ("abandoned", 4, 0)


def test_bids_of_a_cancelled_task_are_told_that_it_is_late(rig):
    job = a_round(rig)
    bid(rig, "a", job)
    rig.control("t", "cancel")
    *_, outgoing = bid(rig, "a", job)
    assert [(one.status, one.code) for one in receipts(outgoing)] == [("late", "E_LATE")]


def test_who_was_not_granted_is_free_for_other_tasks(rig):
    all_bid(rig, a_round(rig))
    rig.submit(task="other", codec="raw-f32", min_clients=2, cohort=2, selection="all")
    rig.work()
    assert rig.newest().task == "other"
    assert set(rig.newest().cohort) == {"a", "d"}


def test_a_granted_update_that_cannot_be_counted_closes_the_round_without_it(rig):
    job = a_round(rig)
    made = {}
    for device in DEVICES:
        payload = b"nonsense" if device == "b" else None
        value = {"b": 40.0, "c": 30.0}.get(device, 1.0)
        *made[device], outgoing = bid(rig, device, job, value, payload=payload)
    assert needs(outgoing) >= {made["b"][0], made["c"][0]}
    for device in "bc":
        give(rig, *made[device])
    remaining = {one.device for one in state_of(rig).grants} - {"b", "c"}
    for device in remaining:
        give(rig, *made[device])
    assert state_of(rig).phase.value == "aggregating"
    assert "b" not in rig.store.round("t", 1).contributors


def test_the_step_is_scaled_by_how_many_were_selected(rig):
    job = a_round(rig, scale_exponent=1.0)
    made, _ = all_bid(rig, job, values=(2.0, 2.0, 2.0, 2.0))
    for grant in state_of(rig).grants:
        give(rig, *made[grant.device])
    rig.work()
    _, model = read_model(rig.objects.path(rig.newest().model.sha256))
    assert model.tolist() == [1.0] * 8  # 2 of 4: half the mean update of 2


def test_a_strategy_that_knows_no_scale_is_refused_by_name(rig):
    rig.submit(task="t", strategy="mine", scale_exponent=0.5)
    (told,) = rig.rejections()
    assert "scale_exponent: 0.5 with strategy 'mine': only fedavg, mean take it" in told.reason


def test_a_need_asks_for_the_one_chunk_of_a_small_update(rig):
    _, outgoing = all_bid(rig, a_round(rig, updates=1))
    asked = [decode_frame(o.payload).body(Need) for o in outgoing if o.topic.kind is Kind.NEED]
    assert [need.want for need in asked] == [(0,)]
