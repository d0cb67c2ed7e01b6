"""What is longer than any update of its task is refused before it is pulled and read."""

import pytest

from central.service.plan_checks import check_size
from central.service.verdicts import UpdateRefusedError
from schemas.ids import transfer_id
from schemas.limits import MAX_OBJECT_BYTES
from schemas.messages import ObjectManifest
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import LAYOUT, begin, receipts
from updates.codecs import create, names


def announce(rig, job, size, **changes):
    """Let device a announce an update of so many bytes; return all that central says."""
    manifest = ObjectManifest(sha256="ab" * 32, size=size, chunk_bytes=1 << 19)
    tail = bytes(manifest.tail_bytes())
    frame = rig.update_frame("a", job, object=manifest, tail=tail, xfer=xfer(job), **changes)[1]
    topic = Topic(Kind.MANIFEST, Address.of_gateway("eu"), xfer=xfer(job))
    return rig.arrive(topic, frame)


def xfer(job):
    return transfer_id("a", job.task, job.round, "ab" * 32)


@pytest.mark.parametrize("size", [45, MAX_OBJECT_BYTES])
def test_an_update_that_no_codec_makes_so_long_is_refused_and_not_pulled(rig, size):
    outgoing = announce(rig, begin(rig), size)
    (receipt,) = receipts(outgoing)
    assert (receipt.status, receipt.code) == ("rejected", "E_SIZE")
    assert receipt.detail == f"object.size: {size} bytes, raw-f32 makes at most 44"
    assert not [one for one in outgoing if one.topic.kind is Kind.NEED]
    assert rig.store.round("t", 1).state.failed == {"a"}


def test_one_that_may_be_so_long_is_pulled(rig):
    outgoing = announce(rig, begin(rig), 44)
    assert [one.topic.kind for one in outgoing] == [Kind.NEED]


def test_a_bid_for_more_than_an_update_takes_is_no_bid(rig):
    job = begin(rig, "a", "b", uplink_budget_bits=1 << 50)
    assert [one.code for one in receipts(announce(rig, job, 45))] == ["E_SIZE"]


@pytest.mark.parametrize("name", names())
def test_the_limit_is_the_codecs_own_bound(name):
    codec = create(name)
    bound = codec.encoded_size_bound(LAYOUT)
    with pytest.raises(UpdateRefusedError, match=f"at most {bound}"):
        check_size(codec, LAYOUT, Offer(bound + 1))
    check_size(codec, LAYOUT, Offer(bound))


class Offer:
    """A manifest as far as its size."""

    def __init__(self, size):
        self.object = ObjectManifest(sha256="ab" * 32, size=size)
