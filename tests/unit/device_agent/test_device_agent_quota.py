"""The outbox's quota: what goes, what stays, and what is not taken on any more."""

import pytest
import structlog
from device_agent_bench import (
    LARGE,
    SMALL,
    TASK,
    Bench,
    model_file,
    offered,
    statuses,
)
from hypothesis import given
from hypothesis import strategies as st

from device_agent.core.job import JobKey
from device_agent.core.quota import Owed, refusal, too_much
from schemas.limits import MIB


def owed(number, size=10, task="t", *, is_held=False):
    return Owed(JobKey(task, number), f"{number:032x}", "0" * 64, size, is_held, float(number))


def rounds(found):
    return [one.key.round for one in found]


def test_within_the_quota_nothing_goes():
    assert too_much([owed(1), owed(2)], {"t": 9}, 20) == ()


def test_the_oldest_superseded_go_and_no_more_than_needed():
    found = too_much([owed(3), owed(1), owed(2)], {"t": 4}, 15)
    assert rounds(found) == [1, 2]


def test_the_newest_of_a_task_stays_whatever_its_size():
    assert rounds(too_much([owed(1), owed(2, 99)], {"t": 2}, 15)) == [1]
    assert too_much([owed(2, 99)], {"t": 2}, 15) == ()


def test_what_a_gateway_holds_stays():
    assert rounds(too_much([owed(1, is_held=True), owed(2)], {"t": 3}, 5)) == [2]


def test_a_task_of_its_own_is_not_superseded_by_another():
    assert too_much([owed(1, task="u"), owed(5)], {"t": 5, "u": 1}, 5) == ()


def test_a_job_is_refused_with_all_numbers_when_nothing_may_go_for_it():
    found = refusal([owed(1, 90, task="u")], {"u": 1, "t": 7}, 10, 100)
    assert found is not None
    assert found.code == "storage"
    assert found.reason == (
        "outbox: 90 bytes without a receipt and 40 to come; at most 100 are allowed"
    )
    assert refusal([owed(1, 60, task="u")], {"u": 1, "t": 7}, 10, 100) is None


def test_a_job_whose_predecessors_may_go_is_taken():
    assert refusal([owed(6, 90)], {"t": 7}, 10, 100) is None


def test_one_update_is_always_allowed():
    assert refusal([], {"t": 7}, 1000, 100) is None


ITEMS = st.lists(
    st.builds(
        owed,
        st.integers(1, 9),
        st.integers(0, 50),
        st.sampled_from(["t", "u"]),
        is_held=st.booleans(),
    ),
    max_size=12,
)


@given(ITEMS, st.integers(0, 9), st.integers(0, 9), st.integers(0, 200))
def test_only_unreceipted_superseded_updates_go_and_only_while_there_is_too_much(
    items, newest_t, newest_u, quota_bytes
):
    newest = {"t": newest_t, "u": newest_u}
    found = too_much(items, newest, quota_bytes)
    assert all(not one.is_held and one.key.round < newest[one.key.task] for one in found)
    left = sum(one.size_bytes for one in items) - sum(one.size_bytes for one in found)
    may_go = [one for one in items if not one.is_held and one.key.round < newest[one.key.task]]
    assert left <= quota_bytes or len(found) == len(may_go)
    if found:
        assert left + found[-1].size_bytes > quota_bytes


# -- in the agent ------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, outbox_quota_bytes=MIB)


def trained(bench, number, task=TASK):
    """Let the device train one round of a large model; return what it said."""
    bench.assign(LARGE, number, task, seed=number)
    for k in range(2):
        bench.block(model_file(LARGE, number), k)
    return bench.train()


def test_over_the_quota_the_oldest_superseded_update_goes_and_the_device_says_so(bench):
    for number in (1, 2):
        trained(bench, number)
    with structlog.testing.capture_logs() as logs:
        said = trained(bench, 3)
    assert bench.outbox.total_bytes() <= MIB
    assert [bench.state(number) for number in (1, 2, 3)] == [
        "superseded",
        "uploading",
        "uploading",
    ]
    (gone,) = [one for one in statuses(said) if one.round == 1]
    assert (gone.state, gone.code) == ("failed", "superseded")
    assert gone.reason == f"not receipted, and the outbox may hold {MIB} bytes"
    (logged,) = [one for one in logs if one["event"] == "update_dropped"]
    assert (logged["round"], logged["quota_bytes"], logged["log_level"]) == (1, MIB, "warning")
    assert logged["outbox_bytes"] > MIB
    kept = {entry.sha256 for entry in bench.store.owed()}
    assert set(bench.objects.sizes()) == kept


def test_what_was_dropped_stays_dropped_in_the_next_life(bench):
    for number in (1, 2, 3):
        trained(bench, number)
    bench = bench.reborn()
    assert [one.key.round for one in bench.store.owed()] == [2, 3]
    assert bench.state(1) == "superseded"


def test_a_quota_that_was_lowered_holds_from_the_next_start_on(tmp_path):
    bench = Bench(tmp_path, outbox_quota_bytes=2 * MIB)
    for number in (1, 2, 3):
        trained(bench, number)
    assert bench.outbox.count() == 3
    bench = bench.reborn(outbox_quota_bytes=MIB)
    assert [one.key.round for one in bench.store.owed()] == [2, 3]


def test_what_a_gateway_holds_is_not_dropped(bench):
    manifest, _ = offered(trained(bench, 1))
    bench.receipt(manifest, "held")
    for number in (2, 3):
        trained(bench, number)
    assert [bench.state(number) for number in (1, 2, 3)] == [
        "uploading",
        "superseded",
        "uploading",
    ]


def test_with_the_outbox_full_of_other_tasks_updates_a_job_is_refused_until_one_is_receipted(
    bench,
):
    manifest, _ = offered(trained(bench, 1, "t-a"))
    trained(bench, 1, "t-b")
    (refused,) = statuses(bench.assign(LARGE, 1, "t-c"))
    assert (refused.state, refused.code) == ("rejected", "storage")
    assert f"outbox: {bench.outbox.total_bytes()} bytes without a receipt" in refused.reason
    assert statuses(bench.assign(SMALL, 1, "t-d"))[0].state != "rejected"
    bench.train()
    bench.receipt(manifest, "accepted")
    assert statuses(bench.assign(LARGE, 2, "t-c"))[0].state != "rejected"


def test_a_receipt_for_what_was_dropped_changes_nothing(bench):
    manifest, _ = offered(trained(bench, 1))
    for number in (2, 3):
        trained(bench, number)
    assert bench.receipt(manifest, "accepted") == []
    assert bench.state(1) == "superseded"
    assert bench.outbox.count() == 2
