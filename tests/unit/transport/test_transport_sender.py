"""The sender: offers until receipted, within its budget, and sends what is asked."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from schemas.ids import transfer_id
from schemas.limits import KIB, MIB, MIN_CHUNK_BYTES
from schemas.messages import Need, Receipt
from schemas.topics import Address, Kind
from transport.database import open_database
from transport.objects import ObjectStore
from transport.outbox import OUTBOX_SCHEMA, Outbox, OutboxEntry
from transport.retry import Backoff
from transport.sender import HELD_REPEAT_S, Sender

SHA = "a" * 64


def xfer(number):
    return transfer_id("dev-a", "t-1", number, SHA)


def entry(number, frame=b"manifest", **changes):
    plain = OutboxEntry(
        xfer=xfer(number),
        task="t-1",
        round_number=number,
        device="dev-a",
        frame=frame,
        sha256=SHA,
        size=len(frame),
        created_s=0.0,
    )
    return replace(plain, **changes)


def receipt(number, status="accepted", **fields):
    return Receipt(xfer=xfer(number), status=status, sha256=fields.pop("sha256", SHA), **fields)


@pytest.fixture
def outbox(tmp_path):
    connection = open_database(tmp_path / "state.db", OUTBOX_SCHEMA, 1)
    yield Outbox(connection)
    connection.close()


def sender(outbox, **options):
    rng = np.random.default_rng(1)
    address = Address("eu", "dev-a")
    return Sender(outbox, "uplink", lambda _: address, Backoff(), rng, **options)


@pytest.fixture
def large(tmp_path):
    data = np.random.default_rng(2).bytes(20 * MIN_CHUNK_BYTES + 3)
    store = ObjectStore(tmp_path / "store")
    path = store.path(store.put(data, durable=False))
    row = entry(0, size=len(data), path=path, chunk_bytes=MIN_CHUNK_BYTES)
    return row, data


def test_an_offer_is_the_stored_frame_on_the_manifest_topic(outbox):
    outbox.add(entry(1))
    (message,) = sender(outbox).due(0.0)
    assert message.topic.name == f"fl/v1/eu/dev-a/up/m/{xfer(1)}"
    assert (message.payload, message.session) == (b"manifest", "uplink")


def test_an_unanswered_offer_is_repeated_ever_more_slowly(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    times = []
    now_s = 0.0
    while now_s < 400.0:
        if sending.due(now_s):
            times.append(now_s)
        now_s = max(now_s + 0.01, sending.next_due_s())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    whole = [1, 2, 4, 8, 16, 32, 60, 60]
    for gap, whole_s in zip(gaps, whole, strict=False):
        assert whole_s / 2 <= gap <= whole_s + 0.02
    assert outbox.get(xfer(1)).tries == len(times)


def test_only_a_final_receipt_for_this_object_removes_the_row(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    sending.due(0.0)
    assert sending.on_receipt(receipt(1, sha256="b" * 64), 0.1).entry is None
    assert sending.on_receipt(receipt(2), 0.1).entry is None
    assert outbox.count() == 1
    effect = sending.on_receipt(receipt(1), 0.1)
    assert effect.final
    assert effect.entry.xfer == xfer(1)
    assert outbox.count() == 0
    repeated = sending.on_receipt(receipt(1), 0.2)
    assert (repeated.entry, repeated.final) == (None, False)


@pytest.mark.parametrize("status", ["accepted", "duplicate", "late", "rejected"])
def test_every_final_status_ends_the_transfer(outbox, status):
    outbox.add(entry(1))
    assert sender(outbox).on_receipt(receipt(1, status), 0.0).final


def test_a_held_update_is_offered_again_after_a_minute(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    sending.due(0.0)
    effect = sending.on_receipt(receipt(1, "held"), 0.1)
    assert not effect.final
    assert effect.entry.held
    assert sending.due(59.0) == []
    assert sending.next_due_s() == 0.1 + HELD_REPEAT_S
    assert len(sending.due(60.2)) == 1


def test_the_receiver_s_delay_is_honoured(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    sending.due(0.0)
    effect = sending.on_receipt(receipt(1, "rejected", retry_after_s=30.0), 0.0)
    assert not effect.final
    assert outbox.count() == 1
    assert sending.due(29.9) == []
    assert len(sending.due(33.1)) == 1


def test_a_delay_of_nothing_is_still_a_pause(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    sending.due(0.0)
    sending.on_receipt(receipt(1, "rejected", retry_after_s=0.0), 0.0)
    assert sending.due(0.4) == []


def test_offers_without_receipt_stay_within_the_budget(outbox):
    for number in range(20):
        outbox.add(entry(number, frame=bytes(100 * KIB)))
    sending = sender(outbox, budget_bytes=MIB)
    first = sending.due(0.0)
    assert len(first) == 10
    assert sending.due(0.0) == []
    assert sending.next_due_s() > 0.0
    for message in first[:3]:
        sending.on_receipt(Receipt(xfer=message.topic.xfer, status="accepted", sha256=SHA), 0.1)
    assert sending.next_due_s() <= 0.1
    assert len(sending.due(0.1)) == 3


def test_all_of_a_long_outbox_gets_its_turn(outbox):
    for number in range(20):
        outbox.add(entry(number, frame=bytes(100 * KIB)))
    sending = sender(outbox, budget_bytes=MIB)
    offered = set()
    now_s = 0.0
    while len(offered) < 20:
        offered |= {message.topic.xfer for message in sending.due(now_s)}
        now_s += 0.5
        assert now_s < 60.0


def test_an_offer_larger_than_the_budget_goes_alone(outbox):
    outbox.add(entry(1, frame=bytes(100)))
    outbox.add(entry(2, frame=bytes(100)))
    assert len(sender(outbox, budget_bytes=10).due(0.0)) == 1


def test_a_returning_counterpart_gets_everything_at_once(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    for second in range(30):
        sending.due(float(second))
    sending.wake(30.0)
    assert len(sending.due(30.0)) == 1


def test_the_chunks_asked_for_are_sent(outbox, large):
    row, data = large
    outbox.add(row)
    sent = sender(outbox).on_need(Need(xfer=row.xfer, want=(20, 1, 21)), 0.0)
    assert [message.topic.k for message in sent] == [20, 1]
    assert {message.topic.kind for message in sent} == {Kind.CHUNK}
    assert sent[0].payload == data[20 * MIN_CHUNK_BYTES :]
    assert sent[1].payload == data[MIN_CHUNK_BYTES : 2 * MIN_CHUNK_BYTES]


def test_a_need_brings_a_few_chunks_into_memory_however_many_it_names(outbox, large):
    row, _ = large
    outbox.add(row)
    need = Need(xfer=row.xfer, want=tuple(range(20)), credit=64)
    assert len(sender(outbox).on_need(need, 0.0)) == 8
    assert len(sender(outbox).on_need(need.model_copy(update={"credit": 3}), 0.0)) == 3


def test_a_need_for_something_unknown_or_inline_is_ignored(outbox):
    outbox.add(entry(1))
    sending = sender(outbox)
    assert sending.on_need(Need(xfer=xfer(1), want=(0,)), 0.0) == []
    assert sending.on_need(Need(xfer=xfer(9), want=(0,)), 0.0) == []


def test_a_manifest_is_not_repeated_while_its_object_is_pulled(outbox, large):
    row, _ = large
    outbox.add(row)
    sending = sender(outbox)
    sending.due(0.0)
    for second in range(1, 30):
        sending.on_need(Need(xfer=row.xfer, want=(0,)), float(second))
        assert sending.due(second + 0.5) == []
    assert len(sending.due(39.1)) == 1
