"""Large models and updates in chunks, and what is purged when it is old."""

import numpy as np

from central.adapters.stored_rounds import read_model
from central.service.records import Refusal
from schemas.envelope import decode_frame
from schemas.ids import transfer_id
from schemas.messages import Get, Need
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import (
    CentralRig,
    TinyModeler,
    begin,
    receipts,
)
from transport.database import transaction
from transport.frames import FrameWriter
from transport.objects import describe
from updates.layout import Layout


def model_of(rig, sha256):
    return read_model(rig.objects.path(sha256))[1]


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
