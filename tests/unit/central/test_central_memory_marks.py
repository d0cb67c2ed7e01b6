"""Central tells which update of a device it has counted, not only in which round."""

import pytest
from test_central_memories import NAMES, assert_audited, play, send, submit, vector

from central.service.assignments import _with_settled
from schemas.ids import MARK_LENGTH, contribution_mark
from schemas.limits import MAX_COHORT
from schemas.messages import Settlement
from schemas.tasks import Training
from tests.support.central_fixture import LAYOUT
from tests.support.memory_devices import MemoryDevice

NONE = "0" * MARK_LENGTH


@pytest.fixture
def rig(rig):
    rig.fleet(*NAMES)
    return rig


@pytest.fixture
def devices():
    return {name: MemoryDevice(name, LAYOUT, 10 * (n + 1)) for n, name in enumerate(NAMES)}


def test_marks_name_the_updates_that_counted(rig, devices):
    first = submit(rig)
    assert first.marks == 3 * NONE
    play(rig, devices)
    second = rig.newest()
    rows = {row.device: row for row in rig.store.contributions("t", 1)}
    told = {name: contribution_mark(row.xfer, row.reference) for name, row in rows.items()}
    assert second.marks == told["a"] + told["b"] + NONE
    assert (second.mark("a"), second.mark("c"), second.mark("z")) == (told["a"], NONE, None)


def test_a_second_update_of_a_device_that_lost_its_store_has_another_mark(rig, devices):
    submit(rig)
    play(rig, devices)
    second = rig.newest()
    assert send(rig, devices["a"], second, vector(1)).status == "accepted"
    row = rig.store.contribution("t", 2, "a")
    emptied = MemoryDevice("a", LAYOUT)
    payload, reference = emptied.update(second, vector(1))
    receipt = rig.update("a", second, payload=payload, reference=reference)
    assert (row.reference, reference, receipt.status) == (1, 0, "duplicate")
    send(rig, devices["b"], second, vector(2))
    rig.work()
    third = rig.newest()
    assert third.reference("a") == 2
    assert third.mark("a") == contribution_mark(row.xfer, 1)
    assert third.mark("a") != contribution_mark(receipt.xfer, 0)
    assert_audited(rig)


def test_settlements_that_the_rest_of_the_header_leaves_no_room_for_are_left_out(rig):
    body = submit(rig)
    ids = tuple(f"{number:032d}" for number in range(MAX_COHORT))
    settled = (Settlement(task="t", round=1, counted=ids),)
    training = Training(frozen=("x" * 100,) * 32)
    settings = {f"{number:064d}": "\x01" * 60 for number in range(32)}
    plan = body.plan.model_copy(update={"training": training, "model_params": settings})
    small = body.model_copy(update={"cohort": ids, "plan": plan, "references": (), "marks": ""})
    assert _with_settled(small, settled).settled == ()
    plain = small.model_copy(update={"plan": body.plan})
    assert _with_settled(plain, settled).settled == settled
    for one in (small, plain):
        rig.desk.frames.frame(_with_settled(one, settled), task="t", round_number=1)


def test_a_task_without_memory_tells_no_marks(rig):
    assert submit(rig, "int8").marks == ""
