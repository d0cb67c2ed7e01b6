"""A device in rounds with an uplink budget: it bids, and sends only when it is asked."""

import numpy as np
import pytest
from device_agent_bench import (
    LARGE,
    SMALL,
    Bench,
    body_of,
    model_file,
    of_kind,
    offered,
    plan_for,
)

from schemas.bids import decode_bid
from schemas.messages import Need, UpdateManifest
from schemas.topics import Kind
from updates.codecs import create


def assign(bench, number=1, layout=SMALL, codec="raw-f32", *, bids=True):
    plan = plan_for(layout, codec).model_copy(update={"bids": bids})
    body, tail = bench.assignment(model_file(layout), plan, number)
    return bench.send(Kind.TASK, body, writer=bench.central, tail=tail)


def bid_of(bench, number, **options):
    """Return the manifest of a round's update, and its bid."""
    assign(bench, number, **options)
    sent = of_kind(bench.train(), Kind.MANIFEST)  # those of earlier rounds may be repeated
    (manifest,) = (m for m in (body_of(one, UpdateManifest) for one in sent) if m.round == number)
    return manifest, decode_bid(manifest.bid)


def fetch(bench, manifest):
    need = Need(xfer=manifest.xfer, want=(0,), credit=4)
    (chunk,) = of_kind(bench.send(Kind.NEED, need, xfer=manifest.xfer), Kind.CHUNK)
    return chunk.payload


def test_a_small_update_waits_to_be_asked_for(bench):
    manifest, bid = bid_of(bench, 1)
    assert not manifest.object.inline
    assert bid.size_bytes == manifest.object.size
    assert len(fetch(bench, manifest)) == manifest.object.size


@pytest.mark.parametrize("codec", ["raw-f32", "int8", "topk"])
def test_the_gain_is_the_squared_norm_of_what_central_decodes(bench, codec):
    manifest, bid = bid_of(bench, 1, codec=codec)
    decoded = create(codec, {}).decode(fetch(bench, manifest), SMALL)
    wanted = float(np.sum(decoded.astype(np.float64) ** 2))
    assert bid.gain == pytest.approx(wanted, rel=2.0**-8)


def test_without_a_budget_there_is_no_bid_and_a_small_update_rides_inline(bench):
    assign(bench, bids=False)
    manifest, _ = offered(bench.train())
    assert (manifest.bid, manifest.object.inline) == (None, True)


def test_a_large_update_bids_as_well(bench):
    plan = plan_for(LARGE).model_copy(update={"bids": True})
    model = model_file(LARGE)
    body, tail = bench.assignment(model, plan)
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    for k in range(2):
        bench.block(model, k)
    manifest, _ = offered(bench.train())
    assert decode_bid(manifest.bid).size_bytes == manifest.object.size > 256 * 1024


def test_the_clock_counts_the_bids_in_a_row_that_were_not_granted(bench):
    clocks = []
    for number, granted in enumerate((False, False, True, False, False), 1):
        manifest, bid = bid_of(bench, number)
        clocks.append(bid.clock)
        if granted:
            bench.receipt(manifest, "accepted")
        else:
            bench.receipt(manifest, "late", code="E_BUDGET")
    assert clocks == [0, 1, 2, 0, 1]


def test_a_bid_without_an_answer_yet_is_counted_as_not_granted(bench):
    bid_of(bench, 1)
    _, bid = bid_of(bench, 2)
    assert bid.clock == 1


def test_the_clock_survives_a_restart(bench):
    manifest, _ = bid_of(bench, 1)
    bench.receipt(manifest, "late", code="E_BUDGET")
    later = bench.reborn()
    _, bid = bid_of(later, 2)
    assert bid.clock == 1
    later.connection.close()


def test_each_task_has_a_clock_of_its_own(bench):
    manifest, _ = bid_of(bench, 1)
    bench.receipt(manifest, "late", code="E_BUDGET")
    plan = plan_for(SMALL).model_copy(update={"bids": True})
    body, tail = bench.assignment(model_file(SMALL), plan, 9, task="t-2")
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    manifest, _ = offered(bench.train())
    assert decode_bid(manifest.bid).clock == 0


def test_an_update_that_was_not_granted_is_forgotten_with_its_file(bench):
    manifest, _ = bid_of(bench, 1)
    assert bench.objects.has(manifest.object.sha256)
    bench.receipt(manifest, "late", code="E_BUDGET")
    assert bench.outbox.count() == 0
    assert not bench.objects.has(manifest.object.sha256)
    assert bench.state(1) == "done"


def test_the_same_bid_is_repeated_after_a_restart(bench):
    manifest, _ = bid_of(bench, 1)
    later = bench.reborn()
    again = [one for one in later.sent if one.topic.kind is Kind.MANIFEST]
    assert [one.topic.xfer for one in again] == [manifest.xfer]
    assert isinstance(later, Bench)
    later.connection.close()
