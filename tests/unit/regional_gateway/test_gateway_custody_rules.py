"""What to do with a manifest, and which receipt ends a transfer."""

from dataclasses import replace

import pytest

from regional_gateway.core.custody import (
    QUOTA_RETRY_S,
    Act,
    Offer,
    Refuse,
    Space,
    Standing,
    ends,
    is_due,
    judge,
)
from schemas.ids import transfer_id
from schemas.limits import DEFAULT_CHUNK_BYTES, MAX_INLINE_BYTES
from schemas.messages import ObjectManifest, Receipt, UpdateManifest

DIGEST = "ab" * 32
ROOM = Space(0, 1 << 30)


def offer(*, size=100, inline=True, **more):
    xfer = transfer_id("dev", "t", 3, DIGEST)
    manifest = UpdateManifest(
        xfer=more.pop("said_xfer", xfer),
        task="t",
        round=3,
        device=more.pop("said_device", "dev"),
        object=ObjectManifest(
            sha256=DIGEST, size=size, chunk_bytes=DEFAULT_CHUNK_BYTES, inline=inline
        ),
        codec="int8",
        layout_sha256=DIGEST,
        base_model_sha256=DIGEST,
        num_examples=1,
    )
    tail = manifest.object.tail_bytes()
    return replace(Offer(manifest, "dev", xfer, "dev", tail, DIGEST), **more)


@pytest.mark.parametrize(
    ("standing", "act"),
    [
        (Standing.UNKNOWN, Act.TAKE),
        (Standing.PULLING, Act.TAKE),
        (Standing.HELD, Act.REPEAT_HELD),
        (Standing.FINAL, Act.REPEAT_FINAL),
    ],
)
def test_an_inline_update_is_taken_once_and_answered_always(standing, act):
    assert judge(offer(), standing, ROOM) is act


def test_a_large_update_is_offered_upward_until_it_is_here():
    big = offer(size=MAX_INLINE_BYTES + 1, inline=False)
    assert judge(big, Standing.UNKNOWN, ROOM) is Act.OFFER
    assert judge(big, Standing.PULLING, ROOM) is Act.OFFER
    assert judge(big, Standing.HELD, ROOM) is Act.REPEAT_HELD


@pytest.mark.parametrize(
    ("bad", "code", "says"),
    [
        (offer(src="other"), "E_IDENTITY", "other"),
        (offer(said_device="other"), "E_IDENTITY", "other"),
        (offer(device="other"), "E_IDENTITY", "other"),
        (offer(xfer="0" * 32), "E_TRANSFER", "0" * 32),
        (offer(said_xfer="0" * 32), "E_TRANSFER", "0" * 32),
        (offer(size=MAX_INLINE_BYTES + 1), "E_SCHEMA", str(MAX_INLINE_BYTES)),
        (offer(tail_bytes=99), "E_SIZE", "99"),
        (offer(tail_sha256="cd" * 32), "E_DIGEST", "cd"),
        (offer(size=MAX_INLINE_BYTES + 1, inline=False, tail_bytes=31), "E_SIZE", "64"),
    ],
)
def test_what_is_not_in_order_is_refused_for_ever_and_told_why(bad, code, says):
    for standing in Standing:
        found = judge(bad, standing, ROOM)
        assert isinstance(found, Refuse)
        assert (found.code, found.retry_after_s) == (code, None)
        assert says in found.detail


def test_over_the_quota_is_a_refusal_for_a_while_that_names_the_limit():
    found = judge(offer(size=100), Standing.UNKNOWN, Space(901, 1000))
    assert isinstance(found, Refuse)
    assert (found.code, found.retry_after_s) == ("E_QUOTA", QUOTA_RETRY_S)
    assert "100" in found.detail
    assert "901" in found.detail
    assert "1000" in found.detail
    assert judge(offer(size=100), Standing.UNKNOWN, Space(900, 1000)) is Act.TAKE


def test_the_quota_does_not_refuse_what_is_already_counted():
    full = Space(1000, 1000)
    assert judge(offer(size=9, inline=False), Standing.PULLING, full) is Act.OFFER
    assert judge(offer(size=9), Standing.HELD, full) is Act.REPEAT_HELD
    assert judge(offer(size=9), Standing.FINAL, full) is Act.REPEAT_FINAL


@pytest.mark.parametrize("status", ["accepted", "duplicate", "late", "rejected"])
def test_only_a_final_receipt_that_names_the_object_ends_its_transfer(status):
    xfer = "1" * 32
    receipt = Receipt(xfer=xfer, status=status, sha256=DIGEST)
    assert ends(receipt, xfer, DIGEST)
    assert not ends(receipt, xfer, "cd" * 32)
    assert not ends(receipt, "2" * 32, DIGEST)
    assert not ends(receipt.model_copy(update={"retry_after_s": 1.0}), xfer, DIGEST)
    assert not ends(receipt.model_copy(update={"status": "held"}), xfer, DIGEST)


@pytest.mark.parametrize(
    ("now_s", "wanted", "uplink_up", "expected"),
    [
        (0.0, False, True, False),
        (1.9, False, True, False),
        (2.0, False, True, True),
        (0.0, True, True, True),
        (0.0, False, False, True),
    ],
)
def test_a_pull_begins_on_need_after_a_while_or_without_an_uplink(
    now_s, wanted, uplink_up, expected
):
    assert is_due(0.0, now_s, wanted=wanted, uplink_up=uplink_up, after_s=2.0) is expected
